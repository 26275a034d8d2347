/** What this browser's person has set, kept in the browser, for all consoles of this origin. */

const KEY = 'serial-console.settings';

/** Of the format. */
const VERSION = 1;

/**
 * @returns {Record<string, unknown>}  empty where there is none, or none that can be read
 */
export function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    return stored?.v === VERSION ? stored : {};
  } catch {
    return {}; // not ours; or this browser keeps nothing for this page
  }
}

/**
 * Stores one value. Others may have been stored by another tab meanwhile.
 * @param {string} name
 * @param {unknown} value
 * @returns {boolean}  false: this browser keeps nothing
 */
export function save(name, value) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...load(), v: VERSION, [name]: value }));
    return true;
  } catch {
    return false;
  }
}

export function clear() {
  try {
    localStorage.removeItem(KEY);
  } catch {
    // What could not be stored need not be removed.
  }
}

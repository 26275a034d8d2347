/** What this tab keeps until it is closed. Where the browser keeps nothing for this page, it is gone with a reload. */

/**
 * @param {string} name
 * @returns {string | null}
 */
export function load(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {string} value
 */
export function save(name, value) {
  try {
    sessionStorage.setItem(name, value);
  } catch {
    // The page has it until then.
  }
}

/** @param {string} name */
export function remove(name) {
  try {
    sessionStorage.removeItem(name);
  } catch {
    // What could not be stored need not be removed.
  }
}

/** Empties another tab's, which has begun with a copy of ours. @param {Window} tab */
export function clear(tab) {
  try {
    tab.sessionStorage.clear();
  } catch {
    // Then it has none either.
  }
}

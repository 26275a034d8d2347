/** What a terminal's keys send, as xterm has them. Names are KeyboardEvent.key's. */

/**
 * @typedef {object} Modifiers
 * @property {boolean} [ctrl]
 * @property {boolean} [meta]  Alt, on most keyboards
 */

/** After CSI, or after SS3 while the guest has set application cursor keys (DECCKM). @type {Record<string, string>} */
const CURSOR = { ArrowUp: 'A', ArrowDown: 'B', ArrowRight: 'C', ArrowLeft: 'D', End: 'F', Home: 'H' };

/** After SS3. @type {Record<string, string>} */
const FUNCTION = { F1: 'P', F2: 'Q', F3: 'R', F4: 'S' };

/** Between CSI and a tilde. @type {Record<string, number>} */
const NUMBERED = {
  Insert: 2,
  Delete: 3,
  PageUp: 5,
  PageDown: 6,
  F5: 15,
  F6: 17,
  F7: 18,
  F8: 19,
  F9: 20,
  F10: 21,
  F11: 23,
  F12: 24,
};

/** XON goes out twice, since Ctrl-Q alone can be what ends the session. @type {Record<string, string>} */
const NAMED = { Escape: '\x1b', Tab: '\t', XON: '\x11\x11' };

// eslint-disable-next-line no-control-regex
const SEQUENCE = /^\x1b(?:[[O]([A-DFHP-S])|\[(\d+)~)$/;

/**
 * @param {string} key
 * @param {boolean} application  the guest has set application cursor keys
 */
export function sequence(key, application) {
  if (key in CURSOR) {
    return `\x1b${application ? 'O' : '['}${CURSOR[key]}`;
  }
  if (key in FUNCTION) {
    return `\x1bO${FUNCTION[key]}`;
  }
  if (key in NUMBERED) {
    return `\x1b[${NUMBERED[key]}~`;
  }
  return NAMED[key] ?? key;
}

/**
 * What a key sends when modifiers are held.
 * @param {string} sent  what it sends without them
 * @param {Modifiers} modifiers
 * @returns {string | null}  null: no key sends that; it is a terminal's answer, or a longer text
 */
export function modified(sent, { ctrl = false, meta = false }) {
  const number = 1 + (meta ? 2 : 0) + (ctrl ? 4 : 0);
  const found = SEQUENCE.exec(sent);
  if (found) {
    return found[1] ? `\x1b[1;${number}${found[1]}` : `\x1b[${found[2]};${number}~`;
  }
  if ([...sent].length !== 1) {
    return null;
  }
  return (meta ? '\x1b' : '') + (ctrl ? control(sent) : sent);
}

/** @param {string} char */
function control(char) {
  if (char === '?') {
    return '\x7f';
  }
  return /[@-_a-z ]/.test(char) ? String.fromCharCode(char.charCodeAt(0) & 0x1f) : char;
}

/** The page's elements, by their ids in serial.html. */

/**
 * @param {string} id
 * @returns {HTMLElement}
 * @throws {Error}  the page has none
 */
export function element(id) {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`serial.html has no #${id}`);
  }
  return found;
}

/** Says something to those who hear the page. @param {string} sentence */
export function announce(sentence) {
  element('announcer').textContent = sentence;
}

/**
 * A text whose characters all show: names, and what a guest asks about, may hold some that hide, or turn the text around
 * them.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => {
    const code = Number(char.codePointAt(0)).toString(16).toUpperCase();
    return `‹U+${code.padStart(4, '0')}›`;
  });
}

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

/** What the guest would like to do outside of its terminal, and the person is asked about. */

import { visible } from './characters.js';
import { announce, element } from './dom.js';

/** Characters of an address that are shown. They are ASCII: the rest of a URL is punycode or percent-encoded. */
const SHOWN = 300;

/** Milliseconds before a question takes a Yes: more than between the two clicks of a double one. */
const CONSIDER = 700;

/**
 * Whether a link, which the person has clicked, is to open.
 * @param {URL} url
 * @returns {Promise<boolean>}
 */
export function askLink(url) {
  const dialog = /** @type {HTMLDialogElement} */ (element('link'));
  element('link-host').textContent = url.host;
  element('link-address').textContent = url.href.length > SHOWN ? `${url.href.slice(0, SHOWN)}…` : url.href;
  dialog.returnValue = '';
  considered('link-yes');
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener('close', () => answer(dialog.returnValue === 'yes'), { once: true });
  });
}

/** Asks in a bar that waits, since the guest asks when it likes to; after a No not again. */
export class ClipboardBar {
  #bar = element('clipboard');
  #refused = false;
  /** @type {(allowed: boolean) => void} */
  #answer = () => {};

  /** @param {import('./console.js').SerialConsole} serial  has the focus afterwards */
  constructor(serial) {
    const close = (/** @type {boolean} */ allowed) => {
      this.#bar.hidden = true;
      this.#refused = !allowed;
      this.#answer(allowed);
      serial.focus();
    };
    element('clipboard-yes').addEventListener('click', () => close(true));
    element('clipboard-no').addEventListener('click', () => close(false));
  }

  /**
   * @param {string} text
   * @returns {Promise<boolean>}
   */
  ask(text) {
    if (this.#refused) {
      return Promise.resolve(false);
    }
    element('clipboard-size').textContent = `${text.length.toLocaleString('en')} characters`;
    element('clipboard-text').textContent = visible(text);
    considered('clipboard-yes');
    this.#bar.hidden = false;
    announce('The guest wants to put something into your clipboard. The question stands above the terminal.');
    return new Promise((answer) => {
      this.#answer = answer;
    });
  }
}

/**
 * Lets a question take a Yes only after a while. The guest may be told of each click, and so put its question where it
 * knows that another click is about to fall.
 * @param {string} id  of the button
 */
function considered(id) {
  const yes = /** @type {HTMLButtonElement} */ (element(id));
  yes.disabled = true;
  setTimeout(() => (yes.disabled = false), CONSIDER);
}

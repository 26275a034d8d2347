/** What is pasted: sent at once where it is little and plain, else after a look at it. */

import { CONTROLS, nameOf, UNSEEN, visible } from './characters.js';
import { element } from './dom.js';
import { Pasting } from './pasting.js';
import { inBytes } from './units.js';

/** Bytes of one line that need no look. */
const LITTLE = 1024;

/** Bytes of a line that Linux keeps for a program that reads lines; it drops the rest without a word. */
const LONGEST_LINE = 4095;

const END_OF_LINE = /\r\n?|\n/;

const encoder = new TextEncoder();

export class PasteDialog {
  #serial;
  #pasting;
  #dialog = /** @type {HTMLDialogElement} */ (element('paste'));
  #area = /** @type {HTMLTextAreaElement} */ (element('paste-text'));
  #controls = /** @type {HTMLInputElement} */ (element('paste-controls'));
  #send = /** @type {HTMLButtonElement} */ (element('paste-send'));
  /** What was pasted into the terminal; null: the person pastes or types into the dialog. @type {string | null} */
  #given = null;

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    this.#serial = serial;
    this.#pasting = new Pasting(serial);
    // Before xterm.js, which would send it all at once.
    element('terminal').addEventListener('paste', (event) => this.#onPaste(event), { capture: true });
    element('paste-button').addEventListener('click', () => this.#open(null));
    this.#area.addEventListener('input', () => this.#describe());
    this.#send.addEventListener('click', () => {
      const text = this.#given ?? this.#area.value;
      const controls = this.#controls.checked;
      this.#dialog.close();
      serial.focus();
      this.#pasting.start(text, controls);
    });
    element('paste-cancel').addEventListener('click', () => this.#dialog.close());
    this.#dialog.addEventListener('close', () => {
      this.#area.value = '';
      this.#given = null;
    });
  }

  /** @param {ClipboardEvent} event */
  #onPaste(event) {
    event.preventDefault();
    event.stopPropagation();
    const text = event.clipboardData?.getData('text/plain') ?? '';
    if (this.#serial.takesInput && needsLook(text)) {
      this.#open(text);
    } else if (text !== '') {
      this.#pasting.start(text, false);
    }
  }

  /** @param {string | null} given */
  #open(given) {
    const title = given === null ? 'Paste' : 'Send this to the guest?';
    const label = given === null ? 'What to send to the guest: paste it here' : 'What you pasted';
    element('paste-title').textContent = title;
    element('paste-label').textContent = label;
    this.#given = given;
    this.#area.value = given === null ? '' : visible(given);
    this.#area.readOnly = given !== null;
    this.#controls.checked = false;
    this.#describe();
    this.#dialog.showModal();
    this.#area.setSelectionRange(0, 0);
    this.#area.scrollTop = 0;
    this.#area.focus(); // and not the button: Enter comes easily after a paste
  }

  #describe() {
    const text = this.#given ?? this.#area.value;
    const lines = text.split(END_OF_LINE);
    const number = lines.length - (lines.at(-1) === '' ? 1 : 0);
    const controls = new Set(text.match(CONTROLS));
    element('paste-size').textContent = `${number} line${number === 1 ? '' : 's'}, ${inBytes(size(text))}`;
    element('paste-enter').hidden = lines.length === 1 || this.#serial.screen.bracketedPaste;
    element('paste-long').hidden = lines.every((line) => size(line) <= LONGEST_LINE);
    element('paste-unseen').hidden = text.search(UNSEEN) < 0;
    element('paste-controls-note').hidden = controls.size === 0;
    element('paste-controls-names').textContent = [...controls].slice(0, 8).map(nameOf).join(', ');
    this.#send.disabled = text === '';
  }
}

/** @param {string} text */
function needsLook(text) {
  return END_OF_LINE.test(text) || size(text) > LITTLE || text.search(CONTROLS) >= 0 || text.search(UNSEEN) >= 0;
}

/**
 * @param {string} text
 * @returns {number}  bytes
 */
function size(text) {
  return encoder.encode(text).length;
}

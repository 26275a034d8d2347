/** Shows how far a paste is, with a way to stop it; meanwhile the terminal stays what it is. */

import { announce, element } from './dom.js';
import { inBytes } from './units.js';

/** @typedef {import('./paste.js').Paste} Paste */

/** Of a paste that is not simply under way. */
const NOTES = {
  echo: '',
  blind: 'No echo comes from the guest: it is sent slowly.',
  held: 'The guest takes nothing now.',
};

export class Pasting {
  #serial;
  #panel = element('pasting');
  #text = element('pasting-text');
  #bar = /** @type {HTMLProgressElement} */ (element('pasting-bar'));
  #note = element('pasting-note');
  #button = element('pasting-cancel');
  /** @type {Paste | undefined} */
  #paste;
  #refusal = '';

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    this.#serial = serial;
    this.#button.addEventListener('click', () => {
      this.#paste?.cancel();
      this.#hide();
    });
  }

  /**
   * @param {string} text
   * @param {boolean} controls  send control characters too
   */
  async start(text, controls) {
    if (this.#paste?.over === false) {
      this.#refusal = 'Only one paste at a time: wait for its end, or cancel it.';
      this.#show(this.#paste.progress);
      announce(this.#refusal);
      return;
    }
    if (!this.#serial.takesInput) {
      this.#fail(`Not pasted: ${this.#why()}`);
      return;
    }
    const paste = this.#serial.paste(text, { controls });
    this.#paste = paste;
    this.#refusal = '';
    paste.addEventListener('progress', () => this.#show(paste.progress));
    this.#bar.hidden = false;
    this.#show(paste.progress);
    this.#button.textContent = 'Cancel';
    this.#panel.hidden = false;
    const { sent, total, cancelled } = await paste.done;
    if (cancelled) {
      announce(`Paste cancelled: ${bytes(sent, total)} were sent.`);
    } else if (sent < total) {
      this.#fail(`Paste stopped: ${this.#why()} ${bytes(sent, total)} were sent.`);
    } else {
      announce(`Pasted ${inBytes(total)}.`);
      this.#hide();
    }
  }

  /** @param {import('./paste.js').Progress} progress */
  #show({ sent, total, pace }) {
    this.#text.textContent = `Pasting: ${bytes(sent, total)}`;
    this.#bar.max = total;
    this.#bar.value = sent;
    this.#note.textContent = this.#refusal || NOTES[pace];
  }

  /** @param {string} sentence */
  #fail(sentence) {
    this.#text.textContent = sentence;
    this.#note.textContent = '';
    this.#bar.hidden = true;
    this.#button.textContent = 'Close';
    this.#panel.hidden = false;
    announce(sentence);
  }

  #why() {
    const { state } = this.#serial.status;
    if (state !== 'connected') {
      return 'the session is not connected.';
    }
    return this.#serial.takesInput ? 'the guest does not run, or its console is away.' : 'this session only watches.';
  }

  #hide() {
    const focused = this.#panel.contains(document.activeElement);
    this.#panel.hidden = true;
    if (focused) {
      this.#serial.focus();
    }
  }
}

/**
 * @param {number} sent
 * @param {number} total
 */
function bytes(sent, total) {
  return `${sent.toLocaleString('en')} of ${inBytes(total)}`;
}

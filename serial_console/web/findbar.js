/** Finds text in what the terminal keeps. */

import { element } from './dom.js';

/** Matches that the terminal counts at most. */
const MOST = 1000;

const OPTIONS = /** @type {const} */ ({ 'find-case': 'caseSensitive', 'find-word': 'wholeWord', 'find-regex': 'regex' });

export class FindBar {
  #serial;
  #bar = element('find');
  #button = element('find-button');
  #text = /** @type {HTMLInputElement} */ (element('find-text'));
  #count = element('find-count');

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    this.#serial = serial;
    this.#button.addEventListener('click', () => (this.#bar.hidden ? this.#open() : this.#close()));
    this.#text.addEventListener('input', () => this.#begin());
    element('find-previous').addEventListener('click', () => this.#find(true));
    element('find-next').addEventListener('click', () => this.#find(false));
    element('find-close').addEventListener('click', () => this.#close());
    for (const id of Object.keys(OPTIONS)) {
      const toggle = element(id);
      toggle.addEventListener('click', () => {
        toggle.setAttribute('aria-pressed', String(!pressed(id)));
        this.#begin();
      });
    }
    this.#bar.addEventListener('keydown', (event) => this.#onKey(event));
    addEventListener('keydown', (event) => this.#onChord(event), { capture: true });
    serial.screen.addEventListener('found', (event) => this.#show(/** @type {any} */ (event).detail));
  }

  #open() {
    this.#bar.hidden = false;
    this.#button.setAttribute('aria-expanded', 'true');
    this.#text.select();
    this.#text.focus();
    this.#begin();
  }

  #close() {
    this.#bar.hidden = true;
    this.#button.setAttribute('aria-expanded', 'false');
    this.#serial.screen.clearFind();
    this.#serial.focus();
  }

  /** From the newest line. */
  #begin() {
    this.#serial.screen.clearFind();
    this.#find(true);
  }

  /** @param {boolean} backwards */
  #find(backwards) {
    const text = this.#text.value;
    const options = Object.fromEntries(Object.entries(OPTIONS).map(([id, option]) => [option, pressed(id)]));
    const wrong = options.regex ? fault(text) : '';
    this.#text.setAttribute('aria-invalid', String(wrong !== ''));
    if (wrong || text === '') {
      this.#count.textContent = wrong;
    } else {
      this.#serial.screen.find(text, { ...options, backwards });
    }
  }

  /** @param {{index: number, count: number}} found */
  #show({ index, count }) {
    const all = count < MOST ? String(count) : `${MOST} or more`;
    const said = count === 0 ? 'Not found' : index < 0 ? `${all} found` : `${index + 1} of ${all}`;
    if (!this.#bar.hidden && this.#count.textContent !== said) {
      this.#count.textContent = said; // a live region that is written to is read out again
    }
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.key === 'Escape') {
      this.#close();
    } else if (event.key === 'Enter' && event.target === this.#text) {
      this.#find(!event.shiftKey); // upwards: what is looked for has been printed before
    } else {
      return;
    }
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  #onChord(event) {
    const chord = event.ctrlKey && event.shiftKey && !event.altKey && !event.metaKey && event.code === 'KeyF';
    if (chord && document.querySelector('dialog[open]') === null) {
      event.preventDefault();
      event.stopPropagation();
      this.#open();
    }
  }
}

/** @param {string} id */
function pressed(id) {
  return element(id).getAttribute('aria-pressed') === 'true';
}

/**
 * @param {string} regex
 * @returns {string}  what is wrong with it, or ""
 */
function fault(regex) {
  try {
    new RegExp(regex);
    return '';
  } catch {
    return 'No valid expression';
  }
}

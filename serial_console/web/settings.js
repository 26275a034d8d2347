/** The settings dialog: what is changed in it has effect at once, and is kept by this browser. */

import { announce, element } from './dom.js';
import { clear, save } from './store.js';

/**
 * @typedef {import('./params.js').Preferences} Preferences
 * @typedef {HTMLInputElement | HTMLSelectElement} Field
 */

/** Preferences, by the screen's name for them. @type {Record<keyof import('./screen.js').ScreenOptions, keyof Preferences>} */
const OPTIONS = {
  fontSize: 'font_size',
  theme: 'theme',
  cursorStyle: 'cursor_style',
  cursorBlink: 'cursor_blink',
  bell: 'bell',
  scrollback: 'scrollback',
  screenReader: 'screen_reader',
  renderer: 'renderer',
};

export class SettingsDialog {
  #dialog = /** @type {HTMLDialogElement} */ (element('settings'));
  #screen;
  #defaults;
  /** @type {Preferences} */
  #preferences;

  /**
   * Applies the settings, too.
   * @param {import('./params.js').Loaded} loaded
   * @param {import('./screen.js').Screen} screen
   */
  constructor({ settings, defaults, linked, fixed }, screen) {
    this.#screen = screen;
    this.#defaults = defaults;
    this.#preferences = settings;
    for (const name of Object.values(OPTIONS)) {
      const mandatory = fixed.includes(name);
      field(name).disabled = mandatory;
      element(`${name}-note`).textContent = mandatory
        ? 'Set by the operator.'
        : linked.includes(name)
          ? 'The link that opens this page sets it each time.'
          : '';
    }
    element('settings-button').addEventListener('click', () => this.#open());
    element('settings-reset').addEventListener('click', () => this.#reset());
    element('settings-form').addEventListener('change', (event) => this.#change(/** @type {Field} */ (event.target)));
    this.#apply(settings);
  }

  #open() {
    this.#fill();
    this.#dialog.showModal();
  }

  #fill() {
    for (const name of Object.values(OPTIONS)) {
      const one = field(name);
      const value = this.#preferences[name];
      if (one.type === 'checkbox') {
        /** @type {HTMLInputElement} */ (one).checked = Boolean(value);
      } else {
        one.value = String(value);
      }
    }
  }

  /** @param {Field} one */
  #change(one) {
    if (one.reportValidity()) {
      const value = valueOf(one);
      element('settings-unkept').hidden = save(one.name, value);
      this.#apply({ ...this.#preferences, [one.name]: value });
    }
  }

  #reset() {
    clear();
    this.#apply(this.#defaults);
    this.#fill();
    announce('All settings are the defaults again.');
  }

  /** @param {Preferences} preferences */
  #apply(preferences) {
    this.#preferences = preferences;
    const { theme } = preferences;
    const page = document.documentElement;
    if (theme === 'system') {
      delete page.dataset.theme; // palette.css follows it
    } else {
      page.dataset.theme = theme;
    }
    const options = Object.entries(OPTIONS).map(([option, name]) => [option, preferences[name]]);
    this.#screen.configure(Object.fromEntries(options));
  }
}

/** @param {keyof Preferences} name */
function field(name) {
  return /** @type {Field} */ (element(name));
}

/** @param {Field} one */
function valueOf(one) {
  switch (one.type) {
    case 'checkbox':
      return /** @type {HTMLInputElement} */ (one).checked;
    case 'number':
      return Number(one.value);
    default:
      return one.value;
  }
}

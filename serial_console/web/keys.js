/** The keys that browsers keep for themselves, or keyboards lack: a panel, and a row where there is little room. */

import { announce, element } from './dom.js';
import { modified, sequence } from './keyboard.js';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Of the buttons in serial.html, `data-key` says what one sends, `data-sticky` which modifier it is. */
export class KeysPanel {
  #serial;
  #panel = element('keys');
  #keys = /** @type {HTMLFieldSetElement} */ (element('keys-set'));
  /** @type {NodeListOf<HTMLButtonElement>} */
  #modifiers = this.#panel.querySelectorAll('[data-sticky]');

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    this.#serial = serial;
    // The focus stays where it is: in the terminal, or nowhere, so that a touch brings up no on-screen keyboard.
    this.#panel.addEventListener('mousedown', (event) => event.preventDefault());
    this.#keys.addEventListener('click', (event) => this.#onClick(/** @type {PointerEvent} */ (event)));
    serial.addEventListener('status', () => this.#show());
    this.#show();
  }

  /**
   * Applies the modifiers that are held to what was typed, and releases them.
   * @param {Uint8Array<ArrayBuffer>} typed
   * @returns {Uint8Array<ArrayBuffer>}
   */
  modify(typed) {
    const held = this.#held();
    if (!held.ctrl && !held.meta) {
      return typed;
    }
    const sent = modified(decoder.decode(typed), held);
    if (sent === null) {
      return typed;
    }
    this.#release();
    return encoder.encode(sent);
  }

  /** @param {PointerEvent} event */
  #onClick(event) {
    const button = /** @type {HTMLElement} */ (event.target).closest('button');
    if (button === null) {
      return;
    }
    const { key, sticky } = button.dataset;
    if (sticky) {
      const pressed = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', String(pressed));
      announce(pressed ? `${sticky} is held for the next key.` : `${sticky} is released.`);
    } else if (key) {
      // As if it were typed: it scrolls down to the prompt, and takes the modifiers that are held.
      this.#serial.screen.terminal.input(this.#sent(key, button.dataset.with));
      this.#release();
    }
    if (event.pointerType !== 'touch') {
      this.#serial.focus();
    }
  }

  /**
   * @param {string} key
   * @param {string} [modifiers]
   */
  #sent(key, modifiers) {
    const plain = sequence(key, this.#serial.screen.terminal.modes.applicationCursorKeysMode);
    if (modifiers === undefined) {
      return plain;
    }
    return modified(plain, { ctrl: modifiers.includes('ctrl'), meta: modifiers.includes('meta') }) ?? plain;
  }

  #held() {
    const [ctrl, meta] = [...this.#modifiers].map((button) => button.getAttribute('aria-pressed') === 'true');
    return { ctrl, meta };
  }

  #release() {
    this.#modifiers.forEach((button) => button.setAttribute('aria-pressed', 'false'));
  }

  #show() {
    const { status, takesInput } = this.#serial;
    const watching = status.state === 'connected' && !takesInput;
    this.#keys.disabled = !takesInput;
    if (!takesInput) {
      this.#release();
    }
    const escape = status.session?.escape.toUpperCase().replace('CTRL', 'Ctrl');
    element('keys-watching').hidden = !watching;
    element('keys-escape').hidden = !escape;
    element('keys-escape').textContent = `${escape} alone ends the session.`;
  }
}

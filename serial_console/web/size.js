/** The terminal's size: that of the window, or one of those that programs expect; and how the guest learns of it. */

import { announce, element } from './dom.js';

export class SizePanel {
  #serial;
  #frame = element('terminal');
  #send = /** @type {HTMLButtonElement} */ (element('size-send'));

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    this.#serial = serial;
    element('size-choice').addEventListener('change', (event) =>
      this.#choose(/** @type {HTMLInputElement} */ (event.target).value),
    );
    this.#send.addEventListener('click', () => {
      announce(`Typed: ${this.#command}`);
      serial.type(`${this.#command}\r`);
      element('size').hidePopover();
      serial.focus();
    });
    serial.screen.addEventListener('size', () => this.#show());
    serial.addEventListener('status', () => this.#show());
    // The terminal is drawn in a new size some time after it has it.
    const drawn = new ResizeObserver(() => this.#show());
    drawn.observe(this.#frame);
    drawn.observe(/** @type {Element} */ (serial.screen.terminal.element));
    this.#show();
  }

  /** @param {string} choice  "fit", or such as "80x24" */
  #choose(choice) {
    const { screen } = this.#serial;
    const fit = choice === 'fit';
    this.#frame.toggleAttribute('data-fixed', !fit);
    if (fit) {
      screen.fit();
    } else {
      const [cols, rows] = choice.split('x').map(Number);
      screen.setSize(cols, rows);
    }
    this.#show();
    announce(`${screen.cols} columns, ${screen.rows} rows.`);
  }

  #show() {
    const { screen, takesInput } = this.#serial;
    const size = `${screen.cols}×${screen.rows}`;
    element('size-button').textContent = size;
    element('size-button').setAttribute('aria-label', `Size: ${size}`);
    element('size-command').textContent = this.#command;
    element('size-beyond').textContent = this.#beyond ? 'It is bigger than the window: scroll to see all of it.' : '';
    this.#send.disabled = !takesInput;
  }

  get #beyond() {
    const { scrollWidth, clientWidth, scrollHeight, clientHeight } = this.#frame;
    return 'fixed' in this.#frame.dataset && (scrollWidth > clientWidth || scrollHeight > clientHeight);
  }

  get #command() {
    const { rows, cols } = this.#serial.screen;
    return `stty rows ${rows} cols ${cols}`;
  }
}

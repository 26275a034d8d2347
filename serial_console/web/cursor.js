/**
 * Blinks the cursor. xterm.js's DOM renderer does it by a CSS animation, which asks for a frame 60 times a second; after a
 * key, browsers let the network wait for the next frame: from key to glyph it took 27 ms with it and takes 6 without
 * (docs/performance.md).
 */

/** Milliseconds on, and off. */
const PERIOD = 600;

const OFF = 'cursor-off';
const RULE = `.${OFF}.focus .xterm-rows .xterm-cursor {
  border-color: transparent !important;
  background-color: transparent !important;
  box-shadow: none !important;
  color: inherit !important;
}`;

export class BlinkingCursor {
  #element;
  #sheet = new CSSStyleSheet();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  #movedAt = 0;
  #off = false;

  /** @param {import('@xterm/xterm').Terminal} terminal  opened */
  constructor(terminal) {
    this.#element = /** @type {HTMLElement} */ (terminal.element);
    this.#sheet.replaceSync(RULE);
    document.adoptedStyleSheets.push(this.#sheet);
    terminal.onCursorMove(() => {
      this.#movedAt = performance.now();
      this.#show(true);
    });
  }

  /** @param {boolean} on */
  blink(on) {
    clearInterval(this.#timer);
    this.#timer = on ? setInterval(() => this.#turn(), PERIOD) : undefined;
    this.#show(true);
  }

  dispose() {
    clearInterval(this.#timer);
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== this.#sheet);
  }

  #turn() {
    this.#show(this.#off || performance.now() - this.#movedAt < PERIOD);
  }

  /** @param {boolean} on */
  #show(on) {
    if (on === this.#off) {
      this.#off = !on;
      this.#element.classList.toggle(OFF, this.#off);
    }
  }
}

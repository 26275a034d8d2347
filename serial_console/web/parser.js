/**
 * xterm.js's parser, without the queue before it. Its API has no way to parse at once, so this reaches behind it;
 * package.json pins its version.
 */

const GROUND = 0;
/** Bright black, a colour of the sixteen: what is merely dim has too little contrast to be read. */
const SOFT = 0x1000008;

// eslint-disable-next-line no-control-regex
const CONTROLS = /[\0-\x1f\x7f-\x9f]+/g;

export class Parser {
  #terminal;
  /** @type {any} */
  #core;
  // xterm.js's own decoder drops what is no UTF-8, and nobody would see that the guest speaks another charset.
  #decoder = new TextDecoder();

  /** @param {import('@xterm/xterm').Terminal} terminal */
  constructor(terminal) {
    this.#terminal = terminal;
    this.#core = /** @type {any} */ (terminal)._core;
  }

  /** @param {Uint8Array} data */
  parse(data) {
    this.#core._inputHandler.parse(this.#decoder.decode(data, { stream: true }));
  }

  /** Has those look at the output who wait for some. */
  parsed() {
    this.#core._onWriteParsed.fire();
  }

  /** Ends the sequence and the character that were begun: the rest of them will not come. */
  breakOff() {
    const rest = this.#decoder.decode();
    const cancel = this.#core._inputHandler._parser.currentState === GROUND ? '' : '\x18';
    this.#core._inputHandler.parse(rest + cancel);
  }

  /**
   * Prints one soft line in square brackets on a row of its own. Not by way of the parser, which may be within a sequence
   * of the guest's; nor in the guest's colours or character set.
   * @param {string} text
   */
  note(text) {
    const { _inputHandler: handler, _charsetService: charsets } = this.#core;
    const { _curAttrData: attributes } = handler;
    const { charset } = charsets;
    if (this.#terminal.buffer.active.cursorX > 0) {
      nextLine(handler);
    }
    charsets.charset = undefined;
    handler._curAttrData = new attributes.constructor();
    handler.eraseInLine({ params: [2] });
    handler._curAttrData.fg = SOFT;
    const line = Uint32Array.from(`[${text.replace(CONTROLS, ' ')}]`, (char) => char.codePointAt(0) ?? 0);
    handler.print(line, 0, line.length);
    handler._curAttrData = attributes;
    charsets.charset = charset;
    nextLine(handler);
    this.#terminal.refresh(0, this.#terminal.rows - 1);
  }
}

/** @param {any} handler */
function nextLine(handler) {
  handler.carriageReturn();
  handler.lineFeed();
}

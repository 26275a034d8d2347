/** Records what a console prints, as asciicast v2: a line with the size, then one for each output and change of size. */

/** Characters of a recording past which it ends by itself: it is kept in the browser's memory. */
const MOST = 100_000_000;

/** Fires `end` when it ends, be it by itself. */
export class Recorder extends EventTarget {
  #serial;
  #began = performance.now();
  #decoder = new TextDecoder();
  /** @type {string[]} */
  #lines = [];
  #length = 0;
  #over = new AbortController();

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    super();
    this.#serial = serial;
    const { screen, status } = serial;
    this.#add({
      version: 2,
      width: screen.cols,
      height: screen.rows,
      timestamp: Math.floor(Date.now() / 1000),
      title: status.session?.guest ?? '',
    });
    const { signal } = this.#over;
    serial.addEventListener('output', (event) => this.#onOutput(/** @type {any} */ (event).detail.bytes), { signal });
    screen.addEventListener('size', () => this.#event('r', `${screen.cols}x${screen.rows}`), { signal });
  }

  get recording() {
    return !this.#over.signal.aborted;
  }

  /** Ends it. @returns {Blob}  the whole of it, a file for asciinema */
  stop() {
    if (this.recording) {
      this.#over.abort();
      this.dispatchEvent(new Event('end'));
    }
    return new Blob(this.#lines, { type: 'application/x-asciicast' });
  }

  /** @param {Uint8Array} bytes */
  #onOutput(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (text) {
      this.#event('o', text);
    }
  }

  /**
   * @param {'o' | 'r'} code
   * @param {string} data
   */
  #event(code, data) {
    this.#add([Number(((performance.now() - this.#began) / 1000).toFixed(6)), code, data]);
    if (this.#length > MOST) {
      this.stop();
    }
  }

  /** @param {object} line */
  #add(line) {
    const json = `${JSON.stringify(line)}\n`;
    this.#lines.push(json);
    this.#length += json.length;
  }
}

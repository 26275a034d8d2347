/**
 * Records what a console prints, as asciicast v2: a line with the size, one with what the screen shows by then, and one for
 * each output and change of size.
 */

/** Characters of a recording past which it ends by itself: it is kept in the browser's memory. */
const MOST = 100_000_000;

/** Fires `end` when it ends, be it by itself. */
export class Recorder extends EventTarget {
  #began = performance.now();
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** @type {string[]} */
  #lines = [];
  #length = 0;
  #end = new AbortController();

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    super();
    const { screen, status } = serial;
    this.#add({
      version: 2,
      width: screen.cols,
      height: screen.rows,
      timestamp: Math.floor(Date.now() / 1000),
      title: status.session?.guest ?? '',
    });
    this.#event('o', screen.serialize());
    const { signal } = this.#end;
    serial.addEventListener('output', (event) => this.#onOutput(/** @type {any} */ (event).detail.bytes), { signal });
    screen.addEventListener('size', () => this.#event('r', `${screen.cols}x${screen.rows}`), { signal });
  }

  get recording() {
    return !this.#end.signal.aborted;
  }

  /** Whether it has ended because it was too long. */
  get full() {
    return this.#length > MOST;
  }

  /** Seconds since it began. */
  get elapsed() {
    return (performance.now() - this.#began) / 1000;
  }

  /** Ends it. @returns {Blob}  the whole of it, a file for asciinema */
  stop() {
    if (this.recording) {
      this.#end.abort();
      this.dispatchEvent(new Event('end'));
    }
    return new Blob(this.#lines, { type: 'application/x-asciicast' });
  }

  /** @param {Uint8Array} bytes */
  #onOutput(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true }); // a character may be split
    if (text) {
      this.#event('o', text);
    }
  }

  /**
   * @param {'o' | 'r'} code
   * @param {string} data
   */
  #event(code, data) {
    this.#add([Number(this.elapsed.toFixed(6)), code, data]);
    if (this.full) {
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

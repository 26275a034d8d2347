/**
 * How much may be sent now. A serial line has no flow control: a guest loses what comes while its buffer is full, and
 * only the echo tells what it has taken. So little is under way that has not come back, less where that takes long.
 */

import { Echo } from './echo.js';

/** Bytes under way that have not come back: the fewest, the most, at first. A BSD's buffer holds 1 KiB, Linux's 4. */
const LEAST = 64;
const MOST = 1024;
const FIRST = 256;

/** More bytes after an echo that came in PROMPT milliseconds; half of them after one that took over LAGS. */
const STEP = 128;
const PROMPT = 300;
const LAGS = 1000;

/** Milliseconds without an echo after which none is waited for: before the first has come, and after. */
const PATIENCE = 2000;
const LONG_PATIENCE = 10_000;

/** Without an echo: bytes a millisecond, and of a piece. A UART of 115200 baud takes 11. */
const BLIND_RATE = 4;
const BLIND_PIECE = 256;

export class Pace {
  #echo;
  #sent = 0;
  #sentAt = 0;
  #window = FIRST;
  #blind = false;
  /** When an echo last came, or was first to be waited for. */
  #heardAt = 0;
  /** The byte whose echo is timed, and since when; 0: none. */
  #timed = { byte: 0, since: 0 };

  /** @param {Uint8Array} data  all that is to be sent */
  constructor(data) {
    this.#echo = new Echo(data);
  }

  /** Whether it goes on without an echo, since none comes. */
  get blind() {
    return this.#blind;
  }

  /**
   * @param {number} now  milliseconds
   * @returns {number}    bytes that may be sent; 0: wait
   */
  room(now) {
    const unheard = this.#sent - this.#echo.seen;
    const patience = this.#echo.seen > 0 ? LONG_PATIENCE : PATIENCE;
    if (unheard > 0 && now - this.#heardAt > patience) {
      this.#blind = true;
    }
    if (this.#blind) {
      const room = Math.min(MOST, Math.floor((now - this.#sentAt) * BLIND_RATE));
      return room < BLIND_PIECE ? 0 : room;
    }
    const room = this.#window - unheard;
    return room < this.#window / 4 ? 0 : room; // else the next byte would follow each echoed one, in its own message
  }

  /**
   * @param {number} bytes  have been sent
   * @param {number} now
   */
  sent(bytes, now) {
    if (this.#sent === this.#echo.seen) {
      this.#heardAt = now;
    }
    this.#sent += bytes;
    this.#sentAt = now;
    if (this.#timed.byte === 0) {
      this.#timed = { byte: this.#sent, since: now };
    }
  }

  /**
   * @param {Uint8Array} output
   * @param {number} now
   */
  hear(output, now) {
    const { seen } = this.#echo;
    if (!this.#blind) {
      this.#echo.hear(output, this.#sent);
    } else if (this.#echo.find(output, this.#sent)) {
      this.#blind = false;
      this.#window = FIRST;
      this.#timed.byte = 0;
    }
    if (this.#echo.seen > seen) {
      this.#heardAt = now;
      this.#adapt(now);
    }
  }

  /** The guest is known to take nothing now. @param {number} now */
  hold(now) {
    this.#heardAt = now;
    this.#timed.byte = 0;
  }

  /** @param {number} now */
  #adapt(now) {
    const { byte, since } = this.#timed;
    if (byte > 0 && this.#echo.seen >= byte) {
      this.#timed.byte = 0;
      if (now - since < PROMPT) {
        this.#window = Math.min(MOST, this.#window + STEP);
      } else if (now - since > LAGS) {
        this.#window = Math.max(LEAST, this.#window / 2);
      }
    }
  }
}

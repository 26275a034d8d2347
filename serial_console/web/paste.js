/** Sends a text to the guest as it can take it. */

import { CONTROLS } from './characters.js';
import { Pace } from './pace.js';

/**
 * @typedef {object} Progress
 * @property {number} sent   bytes
 * @property {number} total  bytes
 * @property {'echo' | 'blind' | 'held'} pace  as the echo comes; slowly, since none comes; not at all, since the guest
 *   takes nothing now
 */

/**
 * @typedef {object} Result
 * @property {number} sent   bytes
 * @property {number} total  bytes
 * @property {boolean} cancelled  else, with `sent` below `total`, the session ended or the guest stopped
 */

/** Milliseconds from look to look; in between, output is one. */
const TICK = 50;

/** States of the console in which it takes nothing for now, and those after which another program may read it. */
const WAITS = ['starting', 'paused'];
const GONE = ['waiting', 'busy', 'reconnecting'];

/** Around a text for a guest that asked for it. */
const BEGIN = '\x1b[200~';
const END = '\x1b[201~';

const encoder = new TextEncoder();

/** Fires `progress`, a CustomEvent with a Progress. */
export class Paste extends EventTarget {
  #serial;
  #bracketed;
  #data;
  #pace;
  #sent = 0;
  #held = false;
  #ticks;
  #end = new AbortController();
  /** @type {(result: Result) => void} */
  #resolve = () => {};

  /** @type {Promise<Result>}  when all is sent, or no more will be */
  done = new Promise((resolve) => (this.#resolve = resolve));

  /**
   * @param {import('./console.js').SerialConsole} serial
   * @param {string} text
   * @param {{controls?: boolean}} [options]  controls: send control characters too
   */
  constructor(serial, text, { controls = false } = {}) {
    super();
    this.#serial = serial;
    this.#bracketed = serial.screen.bracketedPaste;
    const typed = asTyped(controls && text.length > 1 ? text : withoutControls(text)); // one alone may be the escape key
    this.#data = encoder.encode(this.#bracketed ? withoutEnd(typed) : typed);
    this.#pace = new Pace(this.#data);
    const { signal } = this.#end;
    serial.addEventListener('output', (event) => this.#onOutput(/** @type {any} */ (event).detail.bytes), { signal });
    serial.addEventListener('status', () => this.#proceed(), { signal });
    this.#ticks = setInterval(() => this.#proceed(), TICK);
    this.#proceed();
  }

  /** @returns {Progress} */
  get progress() {
    const pace = this.#held ? 'held' : this.#pace.blind ? 'blind' : 'echo';
    return { sent: this.#sent, total: this.#data.length, pace };
  }

  get over() {
    return this.#end.signal.aborted;
  }

  /** Sends no more; what is under way arrives. */
  cancel() {
    if (!this.over && this.#bracketed && this.#sent > 0) {
      this.#serial.type(END); // else the guest would take all that is typed for pasted
    }
    this.#finish(true);
  }

  /** @param {Uint8Array} output */
  #onOutput(output) {
    this.#pace.hear(output, performance.now());
    this.#proceed();
  }

  /** Sends what may be sent now. */
  #proceed() {
    if (this.over) {
      return;
    }
    const { takesInput, status, buffered } = this.#serial;
    if (!takesInput || GONE.includes(status.guestState)) {
      this.#finish(false);
      return;
    }
    const before = this.progress.pace;
    const now = performance.now();
    this.#held = status.held > 0 || WAITS.includes(status.guestState);
    if (this.#held) {
      this.#pace.hold(now);
    } else if (buffered === 0) {
      this.#send(this.#pace.room(now), now);
    }
    if (this.progress.pace !== before) {
      this.#tell();
    }
  }

  /**
   * @param {number} room  bytes
   * @param {number} now
   */
  #send(room, now) {
    const { length } = this.#data;
    if (room > 0 && this.#sent < length) {
      let end = Math.min(length, this.#sent + room);
      if (end === length - 1) {
        end++; // the last one alone in a message may be the escape key
      }
      const piece = this.#data.subarray(this.#sent, end);
      this.#serial.type(this.#bracketed ? this.#marked(piece) : piece);
      this.#pace.sent(piece.length, now);
      this.#sent = end;
      this.#tell();
    }
    if (this.#sent === length) {
      this.#finish(false);
    }
  }

  /** With what belongs before and after it. @param {Uint8Array} piece */
  #marked(piece) {
    const before = this.#sent === 0 ? BEGIN : '';
    const after = this.#sent + piece.length === this.#data.length ? END : '';
    return Uint8Array.from([...encoder.encode(before), ...piece, ...encoder.encode(after)]);
  }

  #tell() {
    this.dispatchEvent(new CustomEvent('progress', { detail: this.progress }));
  }

  /** @param {boolean} cancelled */
  #finish(cancelled) {
    clearInterval(this.#ticks);
    this.#end.abort();
    this.#resolve({ sent: this.#sent, total: this.#data.length, cancelled });
  }
}

/** @param {string} text */
export function withoutControls(text) {
  return text.replace(CONTROLS, '');
}

/** With what the Enter key sends at each line's end. @param {string} text */
function asTyped(text) {
  return text.replace(/\r\n?|\n/g, '\r');
}

/** Without what would end a bracketed paste before its end. @param {string} text */
function withoutEnd(text) {
  let before;
  do {
    before = text;
    text = text.replace(/(\x1b\[|\x9b)201~/g, '');
  } while (text !== before); // what is left may make up another
  return text;
}

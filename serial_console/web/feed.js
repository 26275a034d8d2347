/**
 * Has output parsed in short turns. xterm.js's own queue waits by setTimeout, which browsers hold back to once a second,
 * later once a minute, in a tab that is not seen: a guest would wait for it, or its output fill the memory. Messages of a
 * MessageChannel are not held back.
 */

/** Milliseconds of parsing, after which the browser gets a turn: for keys, and for painting. */
const TURN = 12;

/** Bytes that are parsed without a look at the clock: the worst of them (resets) take 130 ms. */
const PIECE = 1024;

/**
 * @typedef {object} Waiting
 * @property {Uint8Array} data
 * @property {number} at                         how much of it is parsed
 * @property {(bytes: number) => void} [taken]
 * @property {() => void} [act]                  what is done when all before it is parsed
 */

export class Feed {
  /** @type {Waiting[]} */
  #queue = [];
  #backlog = 0;
  #working = false;
  #channel = new MessageChannel();
  #parse;
  #turnEnded;

  /**
   * @param {(data: Uint8Array) => void} parse
   * @param {() => void} turnEnded  is called after each turn
   */
  constructor(parse, turnEnded) {
    this.#parse = parse;
    this.#turnEnded = turnEnded;
    this.#channel.port1.onmessage = () => this.#turn();
  }

  /** Bytes that are not parsed yet. */
  get backlog() {
    return this.#backlog;
  }

  /**
   * @param {Uint8Array} data
   * @param {(bytes: number) => void} [taken]  is told of each part that has been parsed, how many bytes it was
   */
  write(data, taken) {
    this.#backlog += data.length;
    this.#add({ data, at: 0, taken });
  }

  /**
   * Does something between what was written before and what comes later.
   * @param {() => void} act
   */
  then(act) {
    this.#add({ data: new Uint8Array(), at: 0, act });
  }

  dispose() {
    this.#queue.length = 0;
    this.#backlog = 0;
    this.#channel.port1.close();
  }

  /** @param {Waiting} waiting */
  #add(waiting) {
    this.#queue.push(waiting);
    if (this.#queue.length > 1 || this.#working) {
      return;
    }
    if (waiting.data.length <= PIECE) {
      this.#turn(); // at once: it may be a key's echo
    } else {
      this.#channel.port2.postMessage(null);
    }
  }

  #turn() {
    this.#working = true;
    const end = performance.now() + TURN;
    try {
      while (this.#queue.length > 0 && this.#work(end));
    } finally {
      this.#working = false;
      if (this.#queue.length > 0) {
        this.#channel.port2.postMessage(null);
      }
      this.#turnEnded();
    }
  }

  /**
   * @param {number} end  of the turn
   * @returns {boolean}   whether there is time left
   */
  #work(end) {
    const first = this.#queue[0];
    const from = first.at;
    let now = 0;
    try {
      while (first.at < first.data.length && now < end) {
        const piece = first.data.subarray(first.at, first.at + PIECE);
        first.at += piece.length; // first: a piece that cannot be parsed is not tried again
        this.#parse(piece);
        now = performance.now();
      }
      first.act?.();
    } finally {
      if (first.at === first.data.length) {
        this.#queue.shift();
      }
      this.#backlog -= first.at - from;
      first.taken?.(first.at - from);
    }
    return now < end;
  }
}

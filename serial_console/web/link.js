/** One WebSocket to the gateway, from its handshake to its close: bytes, events of serial-console.v1, and how it ended. */

import { EVENTS } from './endpoint.js';
import { ending } from './endings.js';

/**
 * What the gateway says of a session that begins (docs/protocol.md).
 * @typedef {object} Attached
 * @property {string} id
 * @property {string} guest
 * @property {string} uuid
 * @property {string} console      the alias, such as serial0
 * @property {string} user         "" where nobody said
 * @property {'rw' | 'ro'} mode
 * @property {string} escape       the key that ends the session when it is typed alone, such as ctrl-q; "": none
 * @property {number} resume       seconds that the same token may come back in
 * @property {string} relay
 * @property {number} position     bytes that the console had printed since the relay began, at the end of the replay
 * @property {number} replay       bytes of output to come that are replay, skipped ones included
 * @property {number | null} printed  seconds since the guest last printed; null: not since the relay began
 * @property {boolean} continued   output goes on where the last session's ended
 */

/**
 * @typedef {{op: 'session'} & Attached
 *   | {op: 'state', state: string, text: string}
 *   | {op: 'held', bytes: number}
 *   | {op: 'skipped', bytes: number}
 *   | {op: 'notice', text: string}
 *   | {op: 'alive', next: number}} GatewayEvent
 */

/**
 * @typedef {object} Handlers
 * @property {(session: Attached | null) => void} attached  once; null: the gateway speaks no serial-console.v1
 * @property {(event: GatewayEvent) => void} event          others than `session` and `alive`
 * @property {(bytes: Uint8Array<ArrayBuffer>) => void} output
 * @property {(ending: import('./endings.js').Ending) => void} closed  once, and the last
 */

/**
 * A gateway without events refuses by closing right after the handshake, so that it can say why. Until something came,
 * or this many milliseconds passed without a close, its open WebSocket is not yet called attached.
 */
const SETTLE = 300;

/** Milliseconds for the handshake and the session's begin: the gateway itself gives up after 15 s. */
const CONNECT_TIMEOUT = 20_000;

/** Bytes of output that may be on their way; the gateway keeps about as many in its own buffers. */
const WINDOW = 524_288;

/** Bytes after whose parsing the gateway is told. */
const STEP = WINDOW / 4;

/** After how many times the pause between two signs of life that the gateway promised it counts as lost. */
const LOST_AFTER = 2.5;

/** The close code of a connection that was lost: it may arrive yet. */
const GIVEN_UP = 4000;

/** Bytes that wait in the browser to be sent; past it the line counts as congested. */
const CONGESTED = 65_536;

export class Link {
  #socket;
  #handlers;
  #opened = false;
  #attachedTold = false;
  /** @type {Attached | null} */
  #session = null;
  #received = 0;
  #skipped = 0;
  #taken = 0;
  #takenTold = 0;
  #heard = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #silence;

  /**
   * @param {URL} url            with everything in it
   * @param {string[]} protocols
   * @param {Handlers} handlers  none is called before the constructor has returned, nor after close()
   * @throws {DOMException}  the browser does not take the URL
   */
  constructor(url, protocols, handlers) {
    this.#handlers = handlers;
    this.#socket = new WebSocket(url, protocols);
    this.#socket.binaryType = 'arraybuffer';
    this.#socket.onopen = () => this.#onOpen();
    this.#socket.onmessage = ({ data }) => this.#onMessage(data);
    this.#socket.onclose = ({ code, reason }) => this.#finish(ending(code, reason, this.#opened));
    this.#timer = setTimeout(() => this.#lose('The gateway did not answer in time.'), CONNECT_TIMEOUT);
  }

  /** How far the output has come, for the gateway to go on from there; "" where it does not tell. */
  get cursor() {
    if (this.#session === null) {
      return '';
    }
    const { relay, id, position, replay } = this.#session;
    const after = this.#received + this.#skipped - replay;
    return after < 0 ? `${relay}.${id}` : `${relay}.${id}.${position + after}`;
  }

  /** Whether what is sent piles up in the browser. */
  get congested() {
    return this.#socket.bufferedAmount > CONGESTED;
  }

  /** Bytes sent that the browser still has. */
  get buffered() {
    return this.#socket.bufferedAmount;
  }

  /** One message: a control character that the person types alone must arrive alone. @param {Uint8Array<ArrayBuffer>} bytes */
  send(bytes) {
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.send(bytes);
    }
  }

  /** Note that so many bytes of output have been shown; more may come. @param {number} bytes */
  take(bytes) {
    this.#taken += bytes;
    if (this.#taken - this.#takenTold >= STEP) {
      this.#takenTold = this.#taken;
      this.#tell({ op: 'taken', bytes: this.#taken });
    }
  }

  /**
   * Ends it; no handler is called any more.
   * @param {number} [code]  1000: for good, others: to come back
   */
  close(code = 1000) {
    this.#stop();
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  #onOpen() {
    this.#opened = true;
    if (this.#socket.protocol === EVENTS) {
      this.#tell({ op: 'window', bytes: WINDOW });
    } else {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#attach(null), SETTLE);
    }
  }

  /** @param {ArrayBuffer | string} data */
  #onMessage(data) {
    this.#heard = performance.now();
    if (typeof data === 'string') {
      this.#onEvent(data);
      return;
    }
    if (this.#socket.protocol !== EVENTS) {
      this.#attach(null);
    }
    this.#received += data.byteLength;
    this.#handlers.output(new Uint8Array(data));
  }

  /** @param {string} line */
  #onEvent(line) {
    /** @type {GatewayEvent} */
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      return; // no gateway of ours
    }
    if (event.op === 'session') {
      this.#attach(event);
      return;
    }
    if (event.op === 'alive') {
      clearTimeout(this.#silence);
      this.#watch(event.next * 1000 * LOST_AFTER);
      return;
    }
    if (event.op === 'skipped') {
      this.#skipped += event.bytes;
    }
    this.#handlers.event(event);
  }

  /** @param {Attached | null} session */
  #attach(session) {
    if (this.#attachedTold) {
      return;
    }
    this.#attachedTold = true;
    this.#session = session;
    clearTimeout(this.#timer);
    this.#handlers.attached(session);
  }

  /**
   * A browser does not tell of a connection that is dead without a word.
   * @param {number} silence  milliseconds
   */
  #watch(silence) {
    const left = this.#heard + silence - performance.now();
    if (left > 0) {
      this.#silence = setTimeout(() => this.#watch(silence), left);
    } else {
      this.#lose('The gateway does not answer any more: the network may be down.');
    }
  }

  /** @param {string} sentence */
  #lose(sentence) {
    this.close(GIVEN_UP);
    this.#finish({ ...ending(1006, '', this.#opened), sentence });
  }

  /** @param {import('./endings.js').Ending} how */
  #finish(how) {
    this.#stop();
    this.#handlers.closed(how);
  }

  #stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
  }

  /** @param {{op: string, bytes?: number}} message */
  #tell(message) {
    // A gateway without events would type it into the guest.
    if (this.#socket.readyState === WebSocket.OPEN && this.#socket.protocol === EVENTS) {
      this.#socket.send(JSON.stringify(message));
    }
  }
}

/** A person's console over one WebSocket after the other: which state it is in, when to connect again, and with what. */

import { ending } from './endings.js';
import { withToken } from './endpoint.js';
import { Link } from './link.js';
import { TokensUnavailable } from './tokens.js';

/** @typedef {'idle' | 'connecting' | 'connected' | 'reconnecting' | 'ended'} State */

/**
 * What is known now. `guestState`, `text`, `held` and `notice` hold while connected.
 * @typedef {object} Status
 * @property {State} state           `reconnecting`: the next try is waited for
 * @property {import('./link.js').Attached | null} session  the one that is, or was last; null where the gateway does not tell
 * @property {string} guestState     the console's: starting, connected, paused, waiting, busy, reconnecting; or ""
 * @property {string} text           a sentence about that, or ""; while connected only as long as it is news
 * @property {number} held           bytes typed that the guest did not take when it was noticed; 0: it takes all
 * @property {number} skipped        bytes of output that this page did not read in time, since it connected
 * @property {string} notice         a sentence, such as that the session will end; until something is typed
 * @property {import('./endings.js').Ending | null} ending  how the last connection ended, until the next is there
 * @property {number} retryAt        time of the next try as Date.now() counts; 0: none, or when the network is back
 * @property {number} tries          in a row that did not last
 * @property {boolean} canConnect    a token is to be had
 */

/** @type {Record<State, State[]>} */
const STEPS = {
  idle: ['connecting'],
  connecting: ['connected', 'reconnecting', 'ended'],
  connected: ['reconnecting', 'ended'],
  reconnecting: ['connecting', 'ended'],
  ended: ['connecting'],
};

/** Milliseconds that a connection must have lasted for the next pause to be the first again. */
const LASTED = 10_000;

/** Milliseconds for which it is news that the console works again. */
const NEWS = 10_000;

/** Longest pause between two tries in milliseconds. */
const LONGEST_PAUSE = 30_000;

/** @type {import('./endings.js').Ending} */
const BY_PERSON = { code: 1000, sentence: 'You disconnected.', tokenKept: false, passing: false };

/**
 * @typedef {object} SessionOptions
 * @property {URL} url               of the WebSocket, without a token
 * @property {import('./tokens.js').Tokens} tokens
 * @property {boolean} tokenInProtocol  send the token as a subprotocol, not in the URL
 * @property {boolean | undefined} reconnect  by itself; undefined: where it can work
 * @property {number} reconnectDelay milliseconds before the first try
 * @property {(bytes: Uint8Array<ArrayBuffer>, taken: (bytes: number) => void) => void} output
 * @property {(continued: boolean, again: boolean) => void} begin  before a session's first output
 * @property {(bytes: number) => void} skipped  at this place of the output
 * @property {Pick<Console, import('./log.js').Level>} log
 */

/** Fires `status`, a CustomEvent with a Status, at each change. */
export class Session extends EventTarget {
  #options;
  /** @type {Status} */
  #status;
  /** @type {Link | null} */
  #link = null;
  #cursor = '';
  #token = '';
  #since = 0;
  #attempt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #news;
  #wake = () => this.#onWake();

  /** @param {SessionOptions} options */
  constructor(options) {
    super();
    this.#options = options;
    this.#status = {
      state: 'idle',
      session: null,
      guestState: '',
      text: '',
      held: 0,
      skipped: 0,
      notice: '',
      ending: null,
      retryAt: 0,
      tries: 0,
      canConnect: options.tokens.available,
    };
    addEventListener('online', this.#wake);
    document.addEventListener('visibilitychange', this.#wake);
  }

  get status() {
    return this.#status;
  }

  /** Whether what is typed goes anywhere. */
  get takesInput() {
    return this.#status.state === 'connected' && this.#status.session?.mode !== 'ro';
  }

  /** Bytes that wait in the browser to be sent. */
  get buffered() {
    return this.#link?.buffered ?? 0;
  }

  get congested() {
    return this.#link?.congested ?? false;
  }

  /** Connects, now. Does nothing where it is connected, or on the way. */
  async connect() {
    if (this.#status.state === 'connecting' || this.#status.state === 'connected') {
      return;
    }
    clearTimeout(this.#retry);
    const attempt = ++this.#attempt;
    this.#enter('connecting', { retryAt: 0, guestState: '', text: '', held: 0, notice: '' });
    const { url, tokens, tokenInProtocol } = this.#options;
    try {
      const token = await tokens.take();
      if (attempt !== this.#attempt) {
        return; // disconnected meanwhile
      }
      this.#token = token;
      const address = withToken(url, token, tokenInProtocol, this.#cursor);
      this.#link = new Link(address.url, address.protocols, {
        attached: (session) => this.#onAttached(session),
        event: (event) => this.#onEvent(event),
        output: (bytes) => this.#onOutput(bytes),
        closed: (how) => this.#onClosed(how),
      });
    } catch (error) {
      if (attempt === this.#attempt) {
        const sentence = error instanceof Error ? error.message : String(error);
        const passing = error instanceof TokensUnavailable || error instanceof TypeError; // fetch's, where nobody answers
        this.#end({ ...ending(1006, sentence, false), code: 0, passing });
      }
    }
  }

  /** Ends the session, or the waiting for one. */
  disconnect() {
    const { state } = this.#status;
    if (state === 'idle' || state === 'ended') {
      return;
    }
    this.#attempt++;
    clearTimeout(this.#retry);
    this.#cursor = this.#link?.cursor || this.#cursor;
    this.#link?.close();
    this.#link = null;
    this.#enter('ended', { ending: BY_PERSON, tries: 0, retryAt: 0, canConnect: this.#options.tokens.available });
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  send(bytes) {
    if (this.takesInput) {
      this.#link?.send(bytes);
      if (this.#status.notice) {
        this.#set({ notice: '' });
      }
    }
  }

  dispose() {
    this.disconnect();
    removeEventListener('online', this.#wake);
    document.removeEventListener('visibilitychange', this.#wake);
  }

  /** @param {import('./link.js').Attached | null} session */
  #onAttached(session) {
    const again = this.#since > 0;
    this.#since = Date.now();
    if (session !== null && session.resume > 0) {
      this.#options.tokens.keep(this.#token);
    }
    this.#options.begin(session?.continued ?? false, again);
    this.#enter('connected', { session, ending: null, skipped: 0, guestState: session ? 'starting' : '' });
  }

  /** @param {import('./link.js').GatewayEvent} event */
  #onEvent(event) {
    switch (event.op) {
      case 'state':
        this.#onState(event.state, event.text);
        break;
      case 'held':
        this.#set({ held: event.bytes });
        break;
      case 'skipped':
        this.#options.skipped(event.bytes);
        this.#set({ skipped: this.#status.skipped + event.bytes });
        break;
      case 'notice':
        this.#set({ notice: event.text });
        break;
    }
  }

  /**
   * @param {string} guestState
   * @param {string} text
   */
  #onState(guestState, text) {
    clearTimeout(this.#news);
    this.#set({ guestState, text });
    if (guestState === 'connected' && text) {
      this.#news = setTimeout(() => this.#set({ text: '' }), NEWS);
    }
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  #onOutput(bytes) {
    const link = this.#link;
    this.#options.output(bytes, (count) => link?.take(count));
  }

  /** @param {import('./endings.js').Ending} how */
  #onClosed(how) {
    this.#cursor = this.#link?.cursor || this.#cursor;
    this.#link = null;
    const { tokens } = this.#options;
    if (how.tokenKept) {
      tokens.putBack(this.#token);
    } else if (how.code === 4401 && tokens.forget(this.#token) && tokens.available) {
      // The session that this token could come back to is over; there are fresh ones to be had.
      how = { ...how, passing: true };
    }
    this.#end(how);
  }

  /** @param {import('./endings.js').Ending} how */
  #end(how) {
    const { tokens, reconnect, reconnectDelay } = this.#options;
    const lasted = this.#status.state === 'connected' && Date.now() - this.#since > LASTED;
    const tries = lasted ? 0 : this.#status.tries + 1;
    const again = (reconnect ?? tokens.renewable) && how.passing && tokens.available;
    if (!again) {
      this.#enter('ended', { ending: how, tries: 0, retryAt: 0, canConnect: tokens.available });
      return;
    }
    // Some may all have lost the same gateway: they must not all come back at once.
    const pause = Math.min(LONGEST_PAUSE, reconnectDelay * 2 ** Math.max(0, tries - 1)) * (0.5 + Math.random() / 2);
    const offline = !navigator.onLine;
    const retryAt = offline ? 0 : Date.now() + pause;
    if (!offline) {
      this.#retry = setTimeout(() => this.connect(), pause);
    }
    this.#enter('reconnecting', { ending: how, tries, retryAt, canConnect: true });
  }

  /** The network is back, or the person: what is waited for may work now. In a hidden tab a timer does it, if there is one. */
  #onWake() {
    const { state, retryAt } = this.#status;
    if (state === 'reconnecting' && navigator.onLine && (!document.hidden || retryAt === 0)) {
      this.connect();
    }
  }

  /**
   * @param {State} state
   * @param {Partial<Status>} changes
   */
  #enter(state, changes) {
    const previous = this.#status.state;
    if (!STEPS[previous].includes(state)) {
      throw new Error(`serial console: no step from ${previous} to ${state}`);
    }
    clearTimeout(this.#news);
    this.#options.log.info(`serial console: ${previous} -> ${state}`, changes.ending ?? '');
    this.#set({ state, ...changes });
  }

  /** @param {Partial<Status>} changes */
  #set(changes) {
    this.#status = { ...this.#status, ...changes };
    this.dispatchEvent(new CustomEvent('status', { detail: this.#status }));
  }
}

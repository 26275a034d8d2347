/**
 * A serial console in a web page: a terminal attached to a guest's console through a WebSocket. This is the module for
 * other programs' pages (docs/embedding.md); it brings no buttons of its own.
 */

import { Paste } from './paste.js';
import { Recorder } from './recorder.js';
import { Screen } from './screen.js';
import { Session } from './session.js';
import { Tokens, TokensUnavailable } from './tokens.js';

export { TokensUnavailable };

/**
 * @typedef {object} ConsoleOptions
 * @property {string | URL} [url]  of the WebSocket; by default `websockify` beside this module
 * @property {string} [token]        opens one session
 * @property {() => Promise<string>} [requestToken]  gives a fresh token at each connect; throws a TokensUnavailable where
 *   asking again later may help
 * @property {boolean} [tokenInProtocol]  send it as a subprotocol, so that no log on the way has it; default true
 * @property {boolean} [viewOnly]    type nothing
 * @property {boolean} [reconnect]   by itself; default: where it can work
 * @property {number} [reconnectDelay]  milliseconds before the first try, default 1000; it doubles up to 30 s
 * @property {Partial<import('./screen.js').ScreenOptions>} [screen]  how it looks
 * @property {(url: URL) => Promise<boolean>} [askLink]  whether a link of the guest's may open; default: window.confirm
 * @property {(text: string) => Promise<boolean>} [askClipboard]  whether the guest may write this into the clipboard; default: no
 * @property {(bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>} [typed]  what is sent instead of what was typed
 * @property {(event: KeyboardEvent) => boolean} [key]  false: the terminal is not to have this key
 * @property {Pick<Console, import('./log.js').Level>} [log]
 */

/**
 * @typedef {CustomEvent<import('./session.js').Status>} StatusEvent
 * @typedef {CustomEvent<{bytes: Uint8Array<ArrayBuffer>}>} OutputEvent
 */

/** Milliseconds before the first try to connect again. */
const RECONNECT_DELAY = 1000;

const SILENT = { error() {}, warn() {}, info() {}, debug() {} };
const encoder = new TextEncoder();

/** Fires `status` (StatusEvent) at each change, and `output` (OutputEvent) with what the guest prints. */
export class SerialConsole extends EventTarget {
  #session;
  #viewOnly;
  /** @type {Paste | undefined} */
  #paste;
  /** How it looks; find, text, html, setSize and more: screen.js. */
  screen;

  /**
   * @param {HTMLElement} container  is filled; the terminal follows its size
   * @param {ConsoleOptions} options
   */
  constructor(container, options) {
    super();
    this.#viewOnly = options.viewOnly ?? false;
    const { typed = (bytes) => bytes } = options;
    this.screen = new Screen(container, options.screen ?? {}, {
      input: (bytes) => this.#send(typed(bytes)),
      congested: () => this.#session.congested,
      askLink: options.askLink ?? askLink,
      askClipboard: options.askClipboard ?? (async () => false),
      key: options.key ?? (() => true),
    });
    this.#session = new Session({
      url: new URL(options.url ?? 'websockify', options.url ? location.href : import.meta.url),
      tokens: new Tokens(options.token ?? '', options.requestToken ?? null),
      tokenInProtocol: options.tokenInProtocol ?? true,
      reconnect: options.reconnect,
      reconnectDelay: options.reconnectDelay ?? RECONNECT_DELAY,
      output: (bytes, taken) => this.#onOutput(bytes, taken),
      begin: (continued, again) => this.#onBegin(continued, again),
      skipped: (bytes) => this.screen.gap(`${bytes} bytes of output skipped`),
      log: options.log ?? SILENT,
    });
    this.#session.addEventListener('status', () => this.#onStatus());
  }

  /** What is known now. */
  get status() {
    return this.#session.status;
  }

  /** Whether what is typed goes to the guest: connected, and no watcher. */
  get takesInput() {
    return !this.#viewOnly && this.#session.takesInput;
  }

  /** Bytes typed that wait in the browser for the network. */
  get buffered() {
    return this.#session.buffered;
  }

  /** Connects, now; also instead of waiting for the next try. */
  connect() {
    return this.#session.connect();
  }

  /** Ends the session, if there is one. */
  disconnect() {
    this.#session.disconnect();
  }

  /**
   * Sends to the guest, as one message. Does nothing where `takesInput` is false.
   * @param {string | Uint8Array<ArrayBuffer>} data
   */
  type(data) {
    this.#send(typeof data === 'string' ? encoder.encode(data) : data);
  }

  /**
   * Sends a text as the guest can take it: in pieces, the next when the guest has echoed the last.
   * @param {string} text
   * @param {{controls?: boolean}} [options]  controls: send control characters too, which are left out else
   * @returns {Paste}  its progress; it can be cancelled
   * @throws {Error}   the one before is not over
   */
  paste(text, options) {
    if (this.#paste?.over === false) {
      throw new Error('A paste is under way.');
    }
    this.#paste = new Paste(this, text, options);
    return this.#paste;
  }

  /** Begins to record what the guest prints. @returns {Recorder} */
  record() {
    return new Recorder(this);
  }

  focus() {
    this.screen.focus();
  }

  /** Ends the session and takes the terminal out of the page. */
  dispose() {
    this.#session.dispose();
    this.screen.dispose();
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  #send(bytes) {
    if (this.takesInput) {
      this.#session.send(bytes);
    }
  }

  /**
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {(count: number) => void} taken
   */
  #onOutput(bytes, taken) {
    this.screen.write(bytes, taken);
    this.dispatchEvent(new CustomEvent('output', { detail: { bytes } }));
  }

  /**
   * @param {boolean} continued
   * @param {boolean} again
   */
  #onBegin(continued, again) {
    if (again && !continued) {
      this.screen.gap('connected again'); // a sequence that was begun does not go on
    }
  }

  #onStatus() {
    this.screen.setLive(this.takesInput);
    this.dispatchEvent(new CustomEvent('status', { detail: this.status }));
  }
}

/** @param {URL} url */
async function askLink(url) {
  return confirm(`The guest wants to send you to ${url.host}. Open this address in a new tab?\n\n${url}`);
}

/** A terminal attached to a guest's console through a WebSocket: bytes in, bytes out, and a state that is always true. */

import { ending } from './endings.js';
import { guard, openLink, writeInPieces } from './guard.js';
import { openWithoutInlineStyle } from './strict-style.js';
import { DARK } from './theme.js';
import { FitAddon } from './vendor/addon-fit.js';
import { Terminal } from './vendor/xterm.js';

/** @typedef {'idle' | 'connecting' | 'connected' | 'ended'} State */

/**
 * @typedef {object} StateDetail
 * @property {State} state
 * @property {State} previous
 * @property {import('./endings.js').Ending} [ending]  when ended
 */

/** @type {Record<State, State[]>} */
const STEPS = {
  idle: ['connecting'],
  connecting: ['connected', 'ended'],
  connected: ['ended'],
  ended: ['connecting'],
};

/**
 * The gateway refuses by closing right after the handshake, so that it can say why. Until something came, or this many
 * milliseconds passed without a close, an open WebSocket is not yet called connected.
 */
const SETTLE = 300;

const SCROLLBACK = 10_000;

/** Bytes to the gateway that wait in the browser, past which no more answers to the guest's queries join them. */
const CONGESTED = 65_536;

const encoder = new TextEncoder();

/** Fires `state`, a CustomEvent with a StateDetail, at each change of state. */
export class SerialConsole extends EventTarget {
  /** @type {State} */
  #state = 'idle';
  /** @type {WebSocket | null} */
  #socket = null;
  #terminal;
  #resizes;
  #viewOnly;
  #log;

  /**
   * @param {HTMLElement} container  is filled; the terminal follows its size
   * @param {object} [options]
   * @param {number} [options.fontSize]    in pixels
   * @param {boolean} [options.viewOnly]   sends nothing
   * @param {Pick<Console, import('./log.js').Level>} [options.log]
   */
  constructor(container, { fontSize = 14, viewOnly = false, log = console } = {}) {
    super();
    this.#viewOnly = viewOnly;
    this.#log = log;
    this.#terminal = new Terminal({
      disableStdin: true,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
      fontSize,
      linkHandler: { activate: openLink },
      logLevel: 'off', // a guest that prints DEL is an error to it, each time
      scrollback: SCROLLBACK,
      theme: DARK,
    });
    guard(this.#terminal, () => (this.#socket?.bufferedAmount ?? 0) > CONGESTED);
    this.#terminal.onData((text) => this.#send(encoder.encode(text)));
    this.#terminal.onBinary((latin1) => this.#send(Uint8Array.from(latin1, (char) => char.charCodeAt(0))));

    const fit = new FitAddon();
    this.#terminal.loadAddon(fit);
    openWithoutInlineStyle(this.#terminal, container);
    this.#resizes = new ResizeObserver(() => fit.fit());
    this.#resizes.observe(container);
  }

  get state() {
    return this.#state;
  }

  /**
   * Opens a session. What the terminal shows stays.
   * @param {string | URL} url
   * @param {string[]} protocols
   */
  connect(url, protocols) {
    // First, for it may throw.
    const socket = new WebSocket(url, protocols);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    this.#enter('connecting');

    let opened = false;
    /** @type {ReturnType<typeof setTimeout>} */
    let settle;
    const connected = () => {
      clearTimeout(settle);
      if (this.#state === 'connecting') {
        this.#enter('connected');
      }
    };
    socket.addEventListener('open', () => {
      opened = true;
      settle = setTimeout(connected, SETTLE);
    });
    socket.addEventListener('message', ({ data }) => {
      // Text frames are events; who offers "binary" alone gets none.
      if (data instanceof ArrayBuffer) {
        connected();
        writeInPieces(this.#terminal, data);
      }
    });
    socket.addEventListener('close', ({ code, reason }) => {
      clearTimeout(settle);
      this.#socket = null;
      this.#enter('ended', ending(code, reason, opened));
    });
  }

  /** Ends the session, if there is one. */
  disconnect() {
    this.#socket?.close(1000);
  }

  focus() {
    this.#terminal.focus();
  }

  dispose() {
    this.disconnect();
    this.#resizes.disconnect();
    this.#terminal.dispose();
  }

  /**
   * One message for each thing typed: a control character that the person types alone must arrive alone.
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  #send(bytes) {
    if (this.#state === 'connected' && !this.#viewOnly) {
      this.#socket?.send(bytes);
    }
  }

  /**
   * @param {State} state
   * @param {import('./endings.js').Ending} [ending]
   */
  #enter(state, ending) {
    const previous = this.#state;
    if (!STEPS[previous].includes(state)) {
      throw new Error(`serial console: no step from ${previous} to ${state}`);
    }
    this.#state = state;
    this.#log.info(`serial console: ${previous} -> ${state}`, ending ?? '');
    this.#terminal.options.disableStdin = state !== 'connected' || this.#viewOnly;
    this.#terminal.options.cursorBlink = state === 'connected';
    /** @type {StateDetail} */
    const detail = { state, previous, ending };
    this.dispatchEvent(new CustomEvent('state', { detail }));
  }
}

/** Why is it blank? What is known, and what can be done, where a console prints nothing after one has connected. */

import { announce, element } from './dom.js';

/** Milliseconds of silence after which the person wonders. */
const PATIENCE = 5000;

export class BlankPanel {
  #serial;
  #panel = element('blank');
  #began = 0;
  #blank = true; // since the page was opened
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    this.#serial = serial;
    serial.addEventListener('output', () => this.#end(), { once: true });
    serial.addEventListener('status', () => this.#onStatus());
    element('blank-enter').addEventListener('click', () => {
      serial.type('\r');
      serial.focus();
    });
    element('blank-close').addEventListener('click', () => {
      this.#end();
      serial.focus();
    });
  }

  #onStatus() {
    const { state } = this.#serial.status;
    if (state !== 'connected') {
      this.#began = 0;
      this.#hide();
    } else if (this.#began === 0) {
      this.#began = Date.now();
      this.#timer = this.#blank ? setTimeout(() => this.#show(), PATIENCE) : undefined;
    } else if (!this.#panel.hidden) {
      this.#fill();
    }
  }

  /** Something has come, or the person has read it. */
  #end() {
    this.#blank = false;
    this.#hide();
  }

  #hide() {
    clearTimeout(this.#timer);
    this.#panel.hidden = true;
  }

  #show() {
    this.#fill();
    this.#panel.hidden = false;
    announce('Nothing has come from this console yet. What is known of it stands below the terminal.');
  }

  #fill() {
    const { session, guestState } = this.#serial.status;
    const alias = session?.console ?? '';
    const device = deviceOf(alias);
    element('blank-guest').textContent = GUEST[guestState] ?? 'nothing is known of its state';
    element('blank-printed').textContent = printed(session?.printed ?? null, this.#began);
    element('blank-console').textContent = alias ? `${alias}, ${device} in a Linux guest` : 'not known';
    element('blank-kernel').textContent = `console=${device}`;
    element('blank-getty').textContent = `systemctl enable --now serial-getty@${device}`;
    element('blank-enter-hint').hidden = !this.#serial.takesInput;
  }
}

/** @type {Record<string, string>} */
const GUEST = {
  starting: 'its console is being opened',
  connected: 'runs',
  paused: 'is paused: it prints nothing until it is resumed',
  waiting: 'is off',
  busy: 'runs, but another program on the host has its console',
  reconnecting: 'not known: the connection to libvirt is lost',
};

/** The name that Linux gives the device. @param {string} alias  libvirt's, such as serial0 */
function deviceOf(alias) {
  const [, kind, number] = /^(serial|console)(\d+)$/.exec(alias) ?? ['', 'serial', '0'];
  return kind === 'console' ? `hvc${Math.max(0, Number(number) - 1)}` : `ttyS${number}`;
}

/**
 * @param {number | null} before  seconds, when the session began
 * @param {number} began
 */
function printed(before, began) {
  if (before === null) {
    const since = new Date(began).toLocaleTimeString();
    return `not since ${since} at least`;
  }
  return `at ${new Date(began - before * 1000).toLocaleTimeString()}`;
}

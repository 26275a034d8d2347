/** The bar above the terminal: the state, the reason, and the one next thing to do. */

import { visible } from './characters.js';
import { announce, element } from './dom.js';
import { inBytes } from './units.js';

/** @typedef {import('./session.js').Status} Status */

/**
 * @typedef {object} Shown
 * @property {string} label      the state in a word or three
 * @property {string} [reason]   a sentence
 * @property {number} [code]     WebSocket close code
 * @property {string} [advice]   a sentence: what to do when no button can help
 * @property {string} [action]   label of the button; none without it
 * @property {boolean} [trouble] connected, and yet it does not work as it should
 */

const NOT_CONNECTED = 'Not connected';

/** Of a console that its session waits for. @type {Record<string, string>} */
const GUEST_STATES = {
  starting: 'Connected, opening the console',
  paused: 'Guest paused',
  waiting: 'Waiting for the guest',
  busy: 'Console held on the host',
  reconnecting: 'Waiting for libvirt',
};

export class StatusBar {
  #status = element('status');
  #state = element('state');
  #reason = element('reason');
  #code = element('code');
  #advice = element('advice');
  #action = element('action');
  #who = element('who');
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #countdown;
  #shown = '';
  #named = '';

  /** @param {() => void} act  the button's click */
  constructor(act) {
    this.#action.addEventListener('click', act);
  }

  /**
   * @param {Status} status
   * @param {{title: string, guest: string, viewOnly: boolean}} page
   */
  show(status, { title, guest, viewOnly }) {
    clearInterval(this.#countdown);
    this.#name(status, title, viewOnly);
    this.#status.dataset.guest = status.guestState;
    this.#show(status.state, describe(status, guest, viewOnly));
    if (status.state === 'reconnecting' && status.retryAt) {
      this.#count(status.retryAt);
      this.#countdown = setInterval(() => this.#count(status.retryAt), 1000);
    }
  }

  /**
   * The page cannot even begin.
   * @param {string} reason
   * @param {string} [action]
   */
  fail(reason, action) {
    this.#show('ended', { label: NOT_CONNECTED, reason, action });
  }

  /**
   * Says whose console it is, and once aloud: a screen reader reads nothing of itself but the state.
   * @param {Status} status
   * @param {string} title  stands beside it
   * @param {boolean} viewOnly
   */
  #name({ state, session }, title, viewOnly) {
    const parts = session ? whom(session, viewOnly) : [];
    const named = parts.join(', ');
    this.#who.textContent = parts.slice(parts[0] === visible(title) ? 1 : 0).join(' · ');
    if (state === 'connected' && named !== this.#named) {
      this.#named = named;
      announce(named);
    }
  }

  /** On the button, which no screen reader repeats each second. @param {number} retryAt */
  #count(retryAt) {
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    this.#action.textContent = `Reconnect now (in ${seconds} s)`;
  }

  /**
   * @param {Status['state']} state
   * @param {Shown} shown
   */
  #show(state, shown) {
    const { label, reason = '', code = 0, advice = '', action = '', trouble = false } = shown;
    const same = JSON.stringify([state, shown]);
    if (same === this.#shown) {
      return; // a live region that is written to is read out again
    }
    this.#shown = same;
    this.#status.dataset.state = state;
    this.#status.dataset.code = code ? String(code) : '';
    this.#status.toggleAttribute('data-trouble', trouble);
    this.#state.textContent = label;
    this.#reason.textContent = reason;
    this.#code.textContent = code ? `(code ${code})` : '';
    this.#advice.textContent = advice;
    this.#action.textContent = action;
    this.#action.hidden = action === '';
  }
}

/**
 * @param {import('./link.js').Attached} session
 * @param {boolean} viewOnly
 */
function whom(session, viewOnly) {
  const as = session.user ? `as ${session.user}` : 'without a name';
  const how = session.mode === 'ro' || viewOnly ? 'watching' : 'rw';
  return [session.guest, session.console, as, how].map(visible);
}

/**
 * @param {Status} status
 * @param {string} guest  as the link names it
 * @param {boolean} viewOnly
 * @returns {Shown}
 */
function describe(status, guest, viewOnly) {
  const { state, ending, canConnect } = status;
  const why = ending ? { reason: ending.sentence, code: ending.code } : {};
  switch (state) {
    case 'idle':
      if (canConnect) {
        return { label: NOT_CONNECTED, action: 'Connect' };
      }
      return {
        label: NOT_CONNECTED,
        reason: 'This link has no token, or it was used already.',
        advice: newLink(guest),
      };
    case 'connecting':
      return ending ? { label: 'Connecting again', ...why } : { label: 'Connecting' };
    case 'connected':
      return connected(status, viewOnly);
    case 'reconnecting':
      return {
        label: 'Reconnecting',
        ...why,
        advice: status.retryAt ? '' : 'Waiting for the network.',
        action: 'Reconnect now',
      };
    case 'ended': {
      const label = status.session && ending && ending.code !== 4401 ? 'Ended' : NOT_CONNECTED;
      return canConnect ? { label, ...why, action: 'Reconnect' } : { label, ...why, advice: newLink(guest) };
    }
  }
}

/**
 * @param {Status} status
 * @param {boolean} viewOnly
 * @returns {Shown}
 */
function connected({ session, guestState, text, held, skipped, notice }, viewOnly) {
  const watching = session?.mode === 'ro' || viewOnly;
  const waits = GUEST_STATES[guestState];
  const said = [
    text,
    held && !waits ? 'The guest takes no input now: what you type is held.' : '',
    notice,
    skipped ? `${inBytes(skipped)} of output were skipped.` : '',
  ];
  return {
    label: waits ?? (held ? 'Connected, input held' : watching ? 'Connected, watching' : 'Connected'),
    reason: said.filter(Boolean).join(' '),
    trouble: Boolean(waits || held || notice),
  };
}

/** @param {string} guest */
function newLink(guest) {
  const name = /^\w[\w.-]*$/.test(guest) ? guest : 'GUEST';
  return (
    'A link works once: open the console again where you got this one, or ask its operator for a new link ' +
    `(serial-console token ${name} --url).`
  );
}

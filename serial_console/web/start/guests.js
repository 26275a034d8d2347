/** The list of guests, with their consoles and who is attached to each. */

import { Rows, button, make } from './rows.js';
import { aboutSession, guestState, quoted, shown, who } from './words.js';

/** @typedef {import('./rest.js').Guest} Guest */
/** @typedef {import('./rest.js').Console} Console */
/** @typedef {import('./rest.js').Session} Session */

/**
 * @typedef {object} Actions
 * @property {(guest: Guest, console: Console, mode: 'rw' | 'ro', holder: Session | undefined) => void} open
 * @property {(guest: Guest, session: Session) => void} close
 */

/** @typedef {{guest: Guest, sessions: Session[], readOnly: boolean}} GuestItem */
/** @typedef {{guest: Guest, console: Console, sessions: Session[], readOnly: boolean}} ConsoleItem */
/** @typedef {{guest: Guest, session: Session, readOnly: boolean}} SessionItem */

const NAMES = new Intl.Collator(undefined, { numeric: true });

export class GuestList {
  #rows;
  /** @type {GuestItem[]} */
  #items = [];
  #filter = '';

  /**
   * @param {HTMLElement} list
   * @param {Actions} actions
   */
  constructor(list, actions) {
    /** @type {Rows<GuestItem>} */
    this.#rows = new Rows(list, ({ guest }) => guest.uuid, () => guestRow(actions));
  }

  /**
   * @param {Guest[]} guests
   * @param {Session[]} sessions
   * @param {boolean} readOnly  the key can only watch
   */
  show(guests, sessions, readOnly) {
    /** @type {Map<string, Session[]>} */
    const attached = new Map(guests.map(({ uuid }) => [uuid, []]));
    for (const session of [...sessions].sort(holderFirst)) {
      attached.get(session.uuid)?.push(session);
    }
    this.#items = guests
      .map((guest) => ({ guest, sessions: attached.get(guest.uuid) ?? [], readOnly }))
      .sort((one, other) => NAMES.compare(one.guest.name, other.guest.name));
    this.#show();
  }

  /** @param {string} text  part of the names that are wanted */
  filter(text) {
    this.#filter = text.trim().toLowerCase();
    this.#show();
  }

  /** How many there are, in words. */
  get count() {
    const all = this.#items.length;
    const guests = all === 1 ? '1 guest' : `${all} guests`;
    return this.#filter ? `${this.#wanted.length} of ${guests}` : guests;
  }

  get #wanted() {
    return this.#items.filter(({ guest }) => guest.name.toLowerCase().includes(this.#filter));
  }

  #show() {
    this.#rows.show(this.#wanted);
  }
}

/**
 * @param {Session} one
 * @param {Session} other
 */
function holderFirst(one, other) {
  return other.mode.localeCompare(one.mode) || one.opened_at.localeCompare(other.opened_at);
}

/**
 * @param {Actions} actions
 * @returns {import('./rows.js').Row<GuestItem>}
 */
function guestRow(actions) {
  const name = make('h2', 'name');
  const state = make('p', 'state');
  const none = make('p', 'soft');
  none.textContent = 'It has no serial console: add <serial type="pty"/> to it, then start it again.';
  const list = make('ul', 'consoles');
  /** @type {Rows<ConsoleItem>} */
  const consoles = new Rows(list, (item) => item.console.alias, () => consoleRow(actions));
  let last = '';
  return {
    element: make('li', 'guest', make('div', 'about', name, state), none, list),
    show(item) {
      const now = JSON.stringify(item);
      if (now === last) {
        return; // of a thousand guests most are as they were
      }
      last = now;
      const { guest, sessions, readOnly } = item;
      name.textContent = shown(guest.name);
      state.textContent = guestState(guest.state);
      state.dataset.state = guest.state;
      none.hidden = guest.consoles.length > 0;
      consoles.show(
        guest.consoles.map((console) => {
          const here = sessions.filter((session) => session.console === console.alias);
          return { guest, console, sessions: here, readOnly };
        }),
      );
    },
  };
}

/**
 * @param {Actions} actions
 * @returns {import('./rows.js').Row<ConsoleItem>}
 */
function consoleRow(actions) {
  /** @type {ConsoleItem} */
  let item;
  /** @type {Session | undefined} */
  let holder;
  const alias = make('span', 'alias');
  const why = make('span', 'soft');
  const open = button('open', () => actions.open(item.guest, item.console, 'rw', holder));
  const watch = button('', () => actions.open(item.guest, item.console, 'ro', undefined));
  const list = make('ul', 'sessions');
  /** @type {Rows<SessionItem>} */
  const sessions = new Rows(list, ({ session }) => session.id, () => sessionRow(actions));
  return {
    element: make('li', 'console', alias, why, make('span', 'buttons', open, watch), list),
    show(next) {
      item = next;
      const { guest, console, readOnly } = item;
      holder = item.sessions.find(({ mode }) => mode === 'rw');
      const where = `${shown(console.alias)} of ${quoted(guest.name)}`;
      alias.textContent = shown(console.alias);
      alias.classList.toggle('soft', !console.supported);
      why.textContent = `Type ${shown(console.type)}, as it is, cannot be opened.`;
      why.hidden = console.supported;
      label(open, holder ? 'Take over…' : 'Open', where);
      open.hidden = !console.supported || readOnly;
      label(watch, 'Watch', where);
      watch.hidden = !console.supported;
      sessions.show(item.sessions.map((session) => ({ guest, session, readOnly })));
    },
  };
}

/**
 * @param {Actions} actions
 * @returns {import('./rows.js').Row<SessionItem>}
 */
function sessionRow(actions) {
  /** @type {SessionItem} */
  let item;
  const user = make('strong', 'user');
  const about = make('span', 'soft');
  const close = button('', () => actions.close(item.guest, item.session));
  return {
    element: make('li', 'session', make('p', '', user, about), close),
    show(next) {
      item = next;
      user.textContent = shown(item.session.user) || 'somebody';
      about.textContent = aboutSession(item.session);
      label(close, 'Close…', `the session of ${who(item.session)} at ${quoted(item.guest.name)}`);
      close.hidden = item.readOnly;
    },
  };
}

/**
 * @param {HTMLButtonElement} element
 * @param {string} text
 * @param {string} what  said by screen readers only, as there are many such buttons
 */
function label(element, text, what) {
  element.textContent = text;
  element.setAttribute('aria-label', `${text} ${what}`);
}

/** How states, times and people are put into words. */

/** @typedef {import('./rest.js').Session} Session */

/** @type {Record<string, string>} */
const GUEST_STATES = {
  running: 'running',
  paused: 'paused',
  shutdown: 'shutting down',
  shutoff: 'off',
  crashed: 'crashed',
  pmsuspended: 'asleep',
};

/** @type {Record<string, string>} */
const SESSION_STATES = {
  starting: 'being opened',
  connected: '',
  paused: 'guest paused',
  waiting: 'waits for the guest',
  busy: 'waits for another program on the host',
  reconnecting: 'waits for libvirt',
  detached: 'connection lost, may come back',
};

/**
 * A name as it may be shown: none of its characters hides, or turns the text around it.
 * @param {string} name
 */
export function shown(name) {
  return name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd');
}

/**
 * The same within a sentence, which it cannot go on with, whatever its direction.
 * @param {string} name
 */
export function quoted(name) {
  return `“\u2068${shown(name)}\u2069”`;
}

/** @param {string} state */
export function guestState(state) {
  return GUEST_STATES[state] ?? 'state unknown';
}

/** @param {Session} session */
export function who({ user }) {
  return user ? quoted(user) : 'somebody';
}

/**
 * What there is to say of a session beside whose it is.
 * @param {Session} session
 */
export function aboutSession({ mode, state, opened_at, idle, client }) {
  const facts = [mode === 'ro' ? 'watches' : 'reads and writes', SESSION_STATES[state] ?? state];
  facts.push(`since ${clock(opened_at)}`);
  if (mode === 'rw') {
    facts.push(idle < 60 ? 'active' : `idle for ${duration(idle)}`);
  }
  facts.push(`from ${client.replace(/:\d+$/, '')}`);
  return facts.filter(Boolean).join(' · ');
}

/**
 * The time of day, with the day where that is not today.
 * @param {string} time  RFC 3339
 */
export function clock(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? '' : `${date.toLocaleDateString(undefined, { dateStyle: 'medium' })}, `;
  return day + date.toLocaleTimeString(undefined, { timeStyle: 'short' });
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) {
    return `${Math.floor(seconds)} s`;
  }
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The start page: the key, the guests brought up to date every few seconds, and what can be done with them. */

import { GuestList } from './guests.js';
import { ask, withdraw } from './question.js';
import { Rest, RestError } from './rest.js';
import { clear, load, remove, save } from './store.js';
import { clock, duration, quoted, shown, who } from './words.js';

/** @typedef {import('./rest.js').Guest} Guest */
/** @typedef {import('./rest.js').Session} Session */

const PAUSE = 3000;
/** Who lists a host of many guests costs it something: at most this share of the time. */
const BUSY_SHARE = 5;
/** As many guests are seen at a glance. */
const FEW = 10;

const form = /** @type {HTMLFormElement} */ (element('enter'));
const key = /** @type {HTMLInputElement} */ (element('key'));
const user = /** @type {HTMLInputElement} */ (element('user'));
const filter = /** @type {HTMLInputElement} */ (element('filter'));
const list = new GuestList(element('list'), { open, close });

const NOTHING = Object.freeze({ guests: [], sessions: [] });

/** @type {Rest | null} */
let rest = null;
/** @type {{guests: Guest[], sessions: Session[]}} */
let found = NOTHING;
let readOnly = false;
/** When `found` came, as Date.now() counts; 0: it did not yet. */
let updated = 0;
/** Of the last question for a list: the answer to an earlier one comes too late. */
let turn = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

form.addEventListener('submit', (event) => {
  event.preventDefault();
  enter(key.value.trim());
});
element('forget').addEventListener('click', () => {
  forget();
  say('The key is forgotten.');
});
user.addEventListener('change', () => save('user', user.value));
filter.addEventListener('input', () => {
  list.filter(filter.value);
  showCount();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) {
    refresh();
  }
});
setInterval(showAge, 1000);

user.value = load('user') ?? '';
element('broken').hidden = true;
const kept = load('key');
if (kept === null) {
  forget();
} else {
  use(kept);
  refresh();
}

// ---- the key

/** @param {string} value */
async function enter(value) {
  if (!/^[\x21-\x7e]+$/.test(value)) {
    say('That is no API key: a key has no spaces, and only letters, digits and signs.', true);
    return;
  }
  say('Asking the API …');
  const mine = ++turn;
  try {
    const answer = await new Rest(value).list();
    if (mine === turn) {
      save('key', value);
      use(value);
      say('');
      show(answer);
      again(PAUSE);
      (element('filtering').hidden ? user : filter).focus();
    }
  } catch (error) {
    if (mine === turn) {
      say(message(error), true);
      key.focus();
    }
  }
}

/** @param {string} value */
function use(value) {
  rest = new Rest(value);
  key.value = '';
  form.hidden = true;
  element('guests').hidden = element('forget').hidden = false;
}

function forget() {
  turn++;
  clearTimeout(timer);
  remove('key');
  rest = null;
  readOnly = false;
  filter.value = '';
  list.filter('');
  found = NOTHING;
  updated = 0;
  render();
  set('trouble', '');
  withdraw();
  form.hidden = false;
  element('guests').hidden = element('forget').hidden = true;
  key.focus();
}

// ---- the list

async function refresh() {
  if (rest === null) {
    return;
  }
  clearTimeout(timer);
  const mine = ++turn;
  const began = performance.now();
  try {
    const answer = await rest.list();
    if (mine === turn) {
      show(answer);
      again(Math.max(PAUSE, (performance.now() - began) * BUSY_SHARE));
    }
  } catch (error) {
    if (mine === turn) {
      failed(error);
    }
  }
}

/** @param {unknown} error */
function failed(error) {
  const { code, retryAfter } = error instanceof RestError ? error : new RestError('');
  if (code === 'unauthorized') {
    forget();
    say(message(error), true);
    return;
  }
  const seen = updated ? ` What you see is from ${clock(new Date(updated).toISOString())}.` : '';
  set('trouble', `${message(error)} It is tried again by itself.${seen}`);
  again(Math.max(PAUSE, retryAfter * 1000));
}

/** @param {number} pause  milliseconds */
function again(pause) {
  clearTimeout(timer);
  if (!document.hidden) {
    timer = setTimeout(refresh, pause);
  }
}

/** @param {{guests: Guest[], sessions: Session[]}} answer */
function show(answer) {
  found = answer;
  updated = Date.now();
  set('trouble', '');
  render();
}

function render() {
  list.show(found.guests, found.sessions, readOnly);
  element('filtering').hidden = found.guests.length <= FEW && filter.value === '';
  showCount();
  showAge();
}

function showCount() {
  const none = 'There are no guests on this host, or none that this key covers.';
  set('count', found.guests.length ? list.count : updated ? none : '');
}

function showAge() {
  const seconds = (Date.now() - updated) / 1000;
  set('age', !updated ? '' : seconds < 5 ? 'Updated just now' : `Updated ${duration(seconds)} ago`);
}

// ---- what can be done

/**
 * @param {Guest} guest
 * @param {import('./rest.js').Console} console
 * @param {'rw' | 'ro'} mode
 * @param {Session | undefined} holder  who has the console
 */
function open(guest, console, mode, holder) {
  const where = `${shown(console.alias)} of ${quoted(guest.name)}`;
  const asked = { console: console.alias, mode, takeover: holder !== undefined, user: user.value.trim() };
  if (holder === undefined) {
    openTab(guest, where, asked);
    return;
  }
  ask(
    `Take ${where} over from ${who(holder)}?`,
    `It is in use since ${clock(holder.opened_at)}; the last input was ${duration(holder.idle)} ago. ` +
      'That session ends, and its page says that it was taken over.',
    'Take over',
    () => openTab(guest, where, asked),
  );
}

/**
 * @param {Guest} guest
 * @param {string} where
 * @param {{console: string, mode: 'rw' | 'ro', takeover: boolean, user: string}} asked
 */
async function openTab(guest, where, asked) {
  // Before anything is waited for: browsers let only a click open a tab.
  const tab = window.open('about:blank', '_blank');
  if (tab !== null) {
    clear(tab); // the key included
    tab.opener = null;
    tab.document.title = tab.document.body.textContent = `Opening ${where} …`;
  }
  try {
    const { page_url } = await /** @type {Rest} */ (rest).issue(guest.uuid, asked);
    if (tab !== null) {
      tab.location.replace(page_url);
      say(`Opened ${where} in a new tab.`);
    } else {
      say(`The browser opens no new tab for this page. Open it yourself, soon: `);
      element('result').append(link(page_url, where));
    }
    again(PAUSE / 3); // by then it is attached
  } catch (error) {
    tab?.close();
    refused(error);
  }
}

/**
 * @param {Guest} guest
 * @param {Session} session
 */
function close(guest, session) {
  const whose = `the session of ${who(session)} at ${shown(session.console)} of ${quoted(guest.name)}`;
  ask(`Close ${whose}?`, 'Its page says that it was closed by the operator. The guest is not touched.', 'Close session', async () => {
    try {
      await /** @type {Rest} */ (rest).close(session.id);
      say(`Closed ${whose}.`);
    } catch (error) {
      refused(error);
    }
    refresh();
  });
}

/** @param {unknown} error */
function refused(error) {
  say(message(error), true);
  if (error instanceof RestError && error.code === 'forbidden') {
    readOnly = true;
    render();
  }
}

// ---- what is said

/**
 * Says how something went that the person did.
 * @param {string} text
 * @param {boolean} bad
 */
function say(text, bad = false) {
  set('result', text);
  element('result').dataset.bad = String(bad);
}

/**
 * @param {string} id
 * @param {string} text
 */
function set(id, text) {
  if (element(id).textContent !== text) {
    element(id).textContent = text; // else it would be announced again
  }
}

/**
 * @param {string} url
 * @param {string} text
 */
function link(url, text) {
  const made = document.createElement('a');
  Object.assign(made, { href: url, target: '_blank', rel: 'noopener noreferrer', textContent: text });
  return made;
}

/** @param {unknown} error */
function message(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {string} id */
function element(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

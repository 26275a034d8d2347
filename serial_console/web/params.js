/**
 * The page's parameters. They stand in the fragment of its address, which a browser never sends to a server; below them
 * lie what the person has set in this browser, the operator's defaults.json and what is built in, and above all the
 * operator's mandatory.json. Names are noVNC's where noVNC has the parameter.
 */

import { reducedMotion } from './motion.js';

/**
 * How the terminal looks and sounds: what a person may set, and this browser keeps.
 * @typedef {object} Preferences
 * @property {number} font_size        pixels
 * @property {import('./theme.js').ThemeName} theme
 * @property {'block' | 'underline' | 'bar'} cursor_style
 * @property {boolean} cursor_blink
 * @property {'none' | 'visual' | 'sound'} bell
 * @property {number} scrollback       lines
 * @property {boolean} screen_reader
 * @property {'auto' | 'dom'} renderer
 */

/**
 * @typedef {object} Connecting
 * @property {string} token            secret that opens one session
 * @property {string} token_url        where to POST for a fresh token at each connect
 * @property {string} path             of the WebSocket, relative to the page
 * @property {string} host             "" for the page's own
 * @property {number | undefined} port
 * @property {boolean | undefined} encrypt
 * @property {boolean} autoconnect     connect without a click
 * @property {boolean | undefined} reconnect  by itself; undefined: where it can work
 * @property {number} reconnect_delay  milliseconds before the first try; it doubles
 * @property {boolean} view_only       send nothing
 * @property {import('./log.js').Level} logging
 * @property {string} title            of the page; else the guest's name
 * @property {string} guest            name to show
 * @property {string[]} connect_origins     other origins the page may connect to; the operator's alone to say
 * @property {boolean} token_subprotocol    the gateway takes the token as a subprotocol; likewise
 */

/** @typedef {Connecting & Preferences} Settings */

/**
 * @typedef {object} Loaded
 * @property {Settings} settings
 * @property {Settings} defaults  what they were without this browser's own
 * @property {string[]} linked    names of those that the link gives
 * @property {string[]} fixed     names of those that the operator leaves to nobody
 */

/** @param {unknown} value */
const text = (value) => String(value);

/** @param {unknown} value */
const flag = (value) => !['0', 'no', 'false'].includes(String(value).toLowerCase());

/** @param {number} least @param {number} most */
const whole = (least, most) => (/** @type {unknown} */ value) => {
  const number = Number(value);
  if (value === '' || !Number.isInteger(number) || number < least || number > most) {
    throw new Error(`is not a whole number from ${least} to ${most}`);
  }
  return number;
};

/** @param {string[]} words */
const oneOf = (...words) => (/** @type {unknown} */ value) => {
  if (!words.includes(String(value))) {
    throw new Error(`is none of ${words.join(', ')}`);
  }
  return String(value);
};

/** @param {unknown} value */
const origins = (value) => {
  if (!Array.isArray(value)) {
    throw new Error('is not a list');
  }
  return value.map((origin) => new URL(String(origin).replace(/^ws/, 'http')).origin);
};

const PREFERENCES = {
  font_size: whole(6, 72),
  theme: oneOf('system', 'dark', 'light'),
  cursor_style: oneOf('block', 'underline', 'bar'),
  cursor_blink: flag,
  bell: oneOf('none', 'visual', 'sound'),
  scrollback: whole(0, 100_000),
  screen_reader: flag,
  renderer: oneOf('auto', 'dom'),
};

/** How each value is read, in the link and in the operator's files alike. */
const PARAMETERS = {
  token: text,
  token_url: text,
  path: text,
  host: text,
  port: whole(1, 65535),
  encrypt: flag,
  autoconnect: flag,
  reconnect: flag,
  reconnect_delay: whole(0, 3_600_000),
  view_only: flag,
  logging: oneOf('error', 'warn', 'info', 'debug'),
  title: text,
  guest: text,
  ...PREFERENCES,
};

/** What no link may say. */
const OPERATOR_ONLY = {
  connect_origins: origins,
  token_subprotocol: flag,
};

/** @type {Settings} */
const BUILT_IN = {
  token: '',
  token_url: '',
  path: 'websockify',
  host: '',
  port: undefined,
  encrypt: undefined,
  autoconnect: true,
  reconnect: undefined,
  reconnect_delay: 1000,
  view_only: false,
  logging: 'warn',
  title: '',
  guest: '',
  font_size: 14,
  theme: 'system',
  cursor_style: 'block',
  cursor_blink: !reducedMotion.matches,
  bell: 'visual',
  scrollback: 10_000,
  screen_reader: false,
  renderer: 'auto',
  connect_origins: [],
  token_subprotocol: false,
};

/**
 * Reads the fragment, and takes the token out of the address bar and the history.
 * @returns {Record<string, string>}
 */
export function takeFragment() {
  const address = new URL(location.href);
  const fragment = address.hash.slice(1);
  const given = Object.fromEntries(new URLSearchParams(fragment));
  if ('token' in given) {
    const kept = fragment.split('&').filter((pair) => !new URLSearchParams(pair).has('token'));
    address.hash = kept.join('&');
    history.replaceState(history.state, '', address);
  }
  return given;
}

/**
 * @param {Record<string, string>} given    the fragment's
 * @param {Record<string, unknown>} stored  this browser's
 * @returns {Promise<Loaded>}
 */
export async function loadSettings(given, stored) {
  const [defaults, mandatory] = await Promise.all([loadJson('defaults.json'), loadJson('mandatory.json')]);
  const operators = { ...PARAMETERS, ...OPERATOR_ONLY };
  const below = { ...BUILT_IN, ...read('defaults.json', defaults, operators) };
  const linked = read('this link', given, PARAMETERS);
  const fixed = read('mandatory.json', mandatory, operators);
  return {
    settings: { ...below, ...read('this browser', stored, PREFERENCES), ...linked, ...fixed },
    defaults: { ...below, ...linked, ...fixed },
    linked: Object.keys(linked),
    fixed: Object.keys(fixed),
  };
}

/**
 * @param {string} source
 * @param {Record<string, unknown>} values
 * @param {Record<string, (value: unknown) => unknown>} readers
 * @returns {Partial<Settings>}
 */
function read(source, values, readers) {
  /** @type {Record<string, unknown>} */
  const settings = {};
  for (const [name, reader] of Object.entries(readers)) {
    if (Object.hasOwn(values, name)) {
      try {
        settings[name] = reader(values[name]);
      } catch (error) {
        // A console with the default font is worth more than none.
        console.warn(`${name} in ${source} ${/** @type {Error} */ (error).message}: ignored`);
      }
    }
  }
  return settings;
}

/**
 * @param {string} name
 * @returns {Promise<Record<string, unknown>>}  empty when there is no such file
 */
async function loadJson(name) {
  const response = await fetch(new URL(name, location.href), { cache: 'no-cache' }).catch(() => {
    throw new Error('The gateway cannot be reached.');
  });
  if (response.status === 404) {
    return {};
  }
  // Going on without it could drop a rule of the operator's.
  if (!response.ok) {
    throw new Error(`The gateway could not serve ${name}: it answered ${response.status}.`);
  }
  const content = await response.json().catch(() => null);
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new Error(`${name} on the gateway is not a JSON object.`);
  }
  return content;
}

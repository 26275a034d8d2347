/**
 * The page's parameters. They stand in the fragment of its address, which a browser never sends to a server; the
 * operator's defaults.json lies below them and mandatory.json above. Names are noVNC's where noVNC has the parameter.
 */

/**
 * @typedef {object} Settings
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
 * @property {number} font_size        pixels
 * @property {string[]} connect_origins     other origins the page may connect to; the operator's alone to say
 * @property {boolean} token_subprotocol    the gateway takes the token as a subprotocol; likewise
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
  font_size: whole(6, 72),
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
 * @param {Record<string, string>} given  the fragment's
 * @returns {Promise<Settings>}
 */
export async function loadSettings(given) {
  const [defaults, mandatory] = await Promise.all([loadJson('defaults.json'), loadJson('mandatory.json')]);
  const operators = { ...PARAMETERS, ...OPERATOR_ONLY };
  return {
    ...BUILT_IN,
    ...read('defaults.json', defaults, operators),
    ...read('this link', given, PARAMETERS),
    ...read('mandatory.json', mandatory, operators),
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

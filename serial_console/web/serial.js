/** The page: wires the parameters, the tokens, the console and the status bar together. */

import { SerialConsole } from './console.js';
import { checkedTokenUrl, websocketUrl, withToken } from './endpoint.js';
import { logger } from './log.js';
import { loadSettings, takeFragment } from './params.js';
import { StatusBar } from './statusbar.js';
import { Tokens, TokensUnavailable } from './tokens.js';

const NOT_CONNECTED = 'Not connected';

/** @type {() => void} */
let act;
const bar = new StatusBar(() => act());
const given = takeFragment();

// A new link opened in this tab differs in the fragment alone, which by itself does not load the page again.
addEventListener('hashchange', () => location.reload());

prepare();

async function prepare() {
  /** @type {import('./params.js').Settings} */
  let settings;
  try {
    settings = await loadSettings(given);
  } catch (error) {
    act = prepare;
    bar.show({ state: 'ended', label: NOT_CONNECTED, reason: message(error), action: 'Try again' });
    return;
  }
  try {
    start(settings);
  } catch (error) {
    bar.show({ state: 'ended', label: NOT_CONNECTED, reason: message(error) });
  }
}

/** @param {import('./params.js').Settings} settings */
function start(settings) {
  const title = settings.title || settings.guest;
  if (title) {
    document.title = `${title} – Serial console`;
    /** @type {HTMLElement} */ (document.getElementById('title')).textContent = title;
  }

  const endpoint = websocketUrl(settings);
  const tokens = new Tokens(settings.token, settings.token_url ? checkedTokenUrl(settings.token_url) : null);
  const serial = new SerialConsole(/** @type {HTMLElement} */ (document.getElementById('terminal')), {
    fontSize: settings.font_size,
    viewOnly: settings.view_only,
    log: logger(settings.logging),
  });
  let token = '';
  /** @type {ReturnType<typeof setTimeout>} */
  let retry;

  const connect = async () => {
    clearTimeout(retry);
    bar.show({ state: 'connecting', label: 'Connecting' });
    try {
      token = await tokens.take();
      const { url, protocols } = withToken(endpoint, token, settings.token_subprotocol);
      serial.connect(url, protocols);
    } catch (error) {
      showEnd(NOT_CONNECTED, { sentence: message(error), passing: error instanceof TokensUnavailable });
    }
  };

  /**
   * @param {string} label
   * @param {{sentence: string, code?: number, passing?: boolean}} ending
   */
  const showEnd = (label, { sentence, code, passing = false }) => {
    const end = { label, reason: sentence, code };
    if (!tokens.available) {
      bar.show({ ...end, state: 'ended', advice: newLink(settings.guest) });
    } else if (settings.reconnect && passing) {
      const advice = `Next try in ${settings.reconnect_delay / 1000} s.`;
      bar.show({ ...end, state: 'waiting', advice, action: 'Reconnect now' });
      retry = setTimeout(connect, settings.reconnect_delay);
    } else {
      bar.show({ ...end, state: 'ended', action: 'Reconnect' });
    }
  };

  serial.addEventListener('state', (event) => {
    const { state, previous, ending } = /** @type {CustomEvent<import('./console.js').StateDetail>} */ (event).detail;
    if (state === 'connected') {
      bar.show({ state, label: settings.view_only ? 'Connected, view only' : 'Connected' });
      serial.focus();
    } else if (state === 'ended' && ending) {
      if (ending.tokenKept) {
        tokens.putBack(token);
      }
      showEnd(previous === 'connected' ? 'Ended' : NOT_CONNECTED, ending);
    }
  });

  act = connect;
  if (!tokens.available) {
    const reason = 'This link has no token, or it was used already.';
    bar.show({ state: 'idle', label: NOT_CONNECTED, reason, advice: newLink(settings.guest) });
  } else if (settings.autoconnect) {
    connect();
  } else {
    bar.show({ state: 'idle', label: NOT_CONNECTED, action: 'Connect' });
  }
}

/** @param {string} guest */
function newLink(guest) {
  const name = /^\w[\w.-]*$/.test(guest) ? guest : 'GUEST';
  return (
    'A link works once: open the console again where you got this one, or ask its operator for a new link ' +
    `(serial-console token ${name} --url).`
  );
}

/** @param {unknown} error */
function message(error) {
  return error instanceof Error ? error.message : String(error);
}

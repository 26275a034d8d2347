/** The page: wires the parameters, the console and what stands around it together. */

import { BlankPanel } from './blank.js';
import { visible } from './characters.js';
import { SerialConsole } from './console.js';
import { element } from './dom.js';
import { checkedTokenUrl, websocketUrl } from './endpoint.js';
import { offerFullScreen } from './fullscreen.js';
import { FindBar } from './findbar.js';
import { KeysPanel } from './keys.js';
import { logger } from './log.js';
import { talkToParent } from './messages.js';
import { loadSettings, takeFragment } from './params.js';
import { PasteDialog } from './pastedialog.js';
import { SaveMenu } from './save.js';
import { listenForShortcuts } from './shortcuts.js';
import { SettingsDialog } from './settings.js';
import { SizePanel } from './size.js';
import { StatusBar } from './statusbar.js';
import { load } from './store.js';
import { requestToken } from './tokens.js';
import { stayAboveKeyboard } from './viewport.js';
import { ClipboardBar, askLink } from './wishes.js';

/** @type {() => void} */
let act;
const bar = new StatusBar(() => act());
const given = takeFragment();

let atStake = () => false; // by leaving this page
addEventListener('beforeunload', (event) => {
  if (atStake()) {
    event.preventDefault(); // the browser asks
  }
});

// A new link opened in this tab differs in the fragment alone, which by itself does not load the page again.
addEventListener('hashchange', ({ oldURL }) => {
  // In a frame the address is nobody's to see, and some browsers let it ask nothing.
  if (parent === window && atStake()) {
    if (!confirm('Leave this console for that of the new link?')) {
      history.replaceState(history.state, '', oldURL); // its token must not stay in the address bar
      return;
    }
    atStake = () => false;
  }
  location.reload();
});

stayAboveKeyboard();
prepare();

async function prepare() {
  /** @type {import('./params.js').Loaded} */
  let loaded;
  try {
    loaded = await loadSettings(given, load());
  } catch (error) {
    act = prepare;
    bar.fail(message(error), 'Try again');
    return;
  }
  try {
    start(loaded);
  } catch (error) {
    bar.fail(message(error));
  }
}

/** @param {import('./params.js').Loaded} loaded */
function start(loaded) {
  const { settings } = loaded;
  const tokenUrl = settings.token_url ? checkedTokenUrl(settings.token_url) : null;
  const serial = new SerialConsole(element('terminal'), {
    url: websocketUrl(settings),
    token: settings.token,
    requestToken: tokenUrl ? () => requestToken(tokenUrl) : undefined,
    tokenInProtocol: settings.token_subprotocol,
    viewOnly: settings.view_only,
    reconnect: settings.reconnect,
    reconnectDelay: settings.reconnect_delay,
    askLink,
    askClipboard: (text) => clipboard.ask(text),
    typed: (bytes) => keys.modify(bytes),
    log: logger(settings.logging),
  });
  act = () => serial.connect();
  const clipboard = new ClipboardBar(serial);
  new BlankPanel(serial);
  new PasteDialog(serial);
  new FindBar(serial);
  const save = new SaveMenu(serial);
  const keys = new KeysPanel(serial);
  listenForShortcuts(serial);
  new SizePanel(serial);
  offerFullScreen(serial);
  new SettingsDialog(loaded, serial.screen);
  element('disconnect-button').addEventListener('click', () => serial.disconnect());

  element('tools').hidden = false;
  element('keys-place').hidden = false;

  let state = serial.status.state;
  const show = () => {
    const { status } = serial;
    const guest = status.session?.guest || settings.guest;
    const title = settings.title || guest;
    entitle(title);
    bar.show(status, { title, guest, viewOnly: settings.view_only });
    /** @type {HTMLButtonElement} */ (element('disconnect-button')).disabled = ['idle', 'ended'].includes(status.state);
    if (status.state !== state) {
      state = status.state;
      // Who types elsewhere meanwhile, be it in the page around a frame, must not go on in the guest.
      const free = document.activeElement === document.body && (parent === window || document.hasFocus());
      if (state === 'connected' && free) {
        serial.focus();
      }
    }
  };
  serial.addEventListener('status', show);
  atStake = () => serial.status.state === 'connected' || save.recording;

  talkToParent(serial);
  show();
  if (settings.autoconnect && serial.status.canConnect) {
    serial.connect();
  }
}

/** @param {string} title */
function entitle(title) {
  if (title) {
    document.title = `${visible(title)} – Serial console`;
    element('title').textContent = visible(title);
  }
}

/** @param {unknown} error */
function message(error) {
  return error instanceof Error ? error.message : String(error);
}

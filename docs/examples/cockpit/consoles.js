import { SerialConsole, TokensUnavailable } from './console/console.js';

// Cockpit's bridge asks, as root where the user may become root; the API lets root in without a key.
const api = cockpit.http('/run/serial-console-api/api.sock', { superuser: 'try' });
const state = document.getElementById('state');
let serial;

/** Asks the API; an error says what the API says. */
async function ask(method, path, body = '') {
  const headers = { 'Content-Type': 'application/json' };
  return new Promise((resolve, reject) => {
    api.request({ method, path, headers, body }).then(
      (text) => resolve(JSON.parse(text)),
      (error, text) => {
        let detail = error.message;
        try {
          ({ detail } = JSON.parse(text));
        } catch {} // it did not come from the API: the socket is not there, or not for this user
        const Reason = error.status >= 500 ? TokensUnavailable : Error;
        reject(new Reason(detail));
      },
    );
  });
}

async function token(guest) {
  const user = (await cockpit.user()).name;
  return ask('POST', `/v1/guests/${encodeURIComponent(guest)}/tokens`, JSON.stringify({ user }));
}

async function open(guest) {
  serial?.dispose();
  let first = await token(guest);
  serial = new SerialConsole(document.getElementById('console'), {
    url: first.websocket_url.split('?')[0],
    requestToken: async () => {
      const { token: secret } = first ?? (await token(guest));
      first = undefined; // each opens one session; to come back needs another one
      return secret;
    },
  });
  serial.addEventListener('status', ({ detail }) => {
    state.textContent = `${guest}: ${detail.ending?.sentence ?? detail.state}`;
  });
  serial.connect();
  serial.focus();
}

function failed(error) {
  state.textContent = error.message;
}

async function list() {
  const { guests } = await ask('GET', '/v1/guests');
  for (const { name } of guests) {
    const button = document.createElement('button');
    button.textContent = name;
    button.addEventListener('click', () => open(name).catch(failed));
    const item = document.createElement('li');
    item.append(button);
    document.getElementById('guests').append(item);
  }
}

list().catch(failed);

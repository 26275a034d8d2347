/**
 * For a page that has this one in an iframe: it is told what happens here, and may ask for three things
 * (docs/embedding.md). The gateway's frame-ancestors says who may have this page in a frame at all.
 */

/** @param {import('./console.js').SerialConsole} serial */
export function talkToParent(serial) {
  if (parent === window) {
    return;
  }
  const tell = () => {
    const { state, session, guestState, text, held, skipped, ending } = serial.status;
    const { guest = '', console = '', user = '', mode = '' } = session ?? {};
    const { code = 0, sentence: reason = '' } = ending ?? {};
    const status = { state, guest, console, user, mode, guestState, text, held, skipped, code, reason };
    parent.postMessage({ type: 'serial-console:status', ...status }, '*');
  };
  serial.addEventListener('status', tell);
  addEventListener('message', ({ source, data }) => {
    if (source !== parent) {
      return;
    }
    switch (data?.type) {
      case 'serial-console:connect':
        serial.connect();
        break;
      case 'serial-console:disconnect':
        serial.disconnect();
        break;
      case 'serial-console:focus':
        serial.focus();
        break;
    }
  });
  tell();
}

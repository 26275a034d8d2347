/** OSC 52: the guest may write the person's clipboard when they allow it, and never read it. */

/** Characters of text, in base64; all that comes is held until its end, so xterm.js has a bound of its own. */
const LONGEST = 1_398_104; // 1 MiB

/**
 * @param {import('@xterm/xterm').Terminal} terminal
 * @param {(text: string) => Promise<boolean>} ask
 */
export function guardClipboard(terminal, ask) {
  let asking = false;
  terminal.parser.registerOscHandler(52, (data) => {
    const text = decode(data.slice(data.indexOf(';') + 1));
    // One question at a time: a guest that asks without end must not keep the person busy.
    if (text && !asking && navigator.clipboard) {
      asking = true;
      ask(text)
        .then((allowed) => (allowed ? navigator.clipboard.writeText(text) : undefined))
        .catch((error) => console.warn('serial console: not copied:', error))
        .finally(() => (asking = false));
    }
    return true;
  });
}

/**
 * @param {string} base64
 * @returns {string}  "" for what is none: a query ("?") too
 */
function decode(base64) {
  if (base64.length > LONGEST) {
    return '';
  }
  try {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return '';
  }
}

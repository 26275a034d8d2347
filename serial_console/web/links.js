/** Addresses that the guest shows. A click opens http and https alone, in a new tab, and after the person was asked. */

/** Web addresses are no longer; what is longer is there to hide its end. */
const LONGEST = 2048;

/**
 * @param {string} text  the address, as the guest wrote it
 * @returns {URL | null}
 */
export function webAddress(text) {
  if (text.length > LONGEST || !URL.canParse(text)) {
    return null;
  }
  const url = new URL(text);
  if (!['http:', 'https:'].includes(url.protocol)) {
    return null;
  }
  url.username = url.password = ''; // http://bank.example@elsewhere/
  return url;
}

/**
 * @param {(url: URL) => Promise<boolean>} ask
 * @returns {(event: MouseEvent, text: string) => Promise<void>}  what a click on an address does
 */
export function linkOpener(ask) {
  return async (_event, text) => {
    const url = webAddress(text);
    if (url !== null && (await ask(url))) {
      open(url, '_blank', 'noopener,noreferrer');
    }
  };
}

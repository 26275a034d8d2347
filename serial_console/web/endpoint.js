/** Which servers the page talks to. A crafted link must not make it talk to strangers. */

/** The subprotocol in which text frames tell of the session; without it the gateway writes into the output instead. */
export const EVENTS = 'serial-console.v1';

/**
 * @param {import('./params.js').Settings} settings
 * @returns {URL}  of the WebSocket, without the token
 */
export function websocketUrl({ path, host, port, encrypt, connect_origins }) {
  const page = new URL(location.href);
  const base = host ? parse(`${page.protocol}//${host}`) : page;
  // As in noVNC: beside a host, the path is only ever a path.
  const url = parse(host ? `./${path.replace(/^\/+/, '')}` : path, base);
  const secure = encrypt ?? ['https:', 'wss:'].includes(url.protocol);
  url.protocol = secure ? 'wss:' : 'ws:';
  if (port !== undefined) {
    url.port = String(port);
  }
  url.username = url.password = url.hash = '';

  const origin = `${secure ? 'https:' : 'http:'}//${url.host}`;
  if (url.host !== page.host && !connect_origins.includes(origin)) {
    throw new Error(`This link wants to connect to ${origin}, which this gateway does not allow (connect_origins).`);
  }
  return url;
}

/**
 * @param {URL} endpoint
 * @param {string} token
 * @param {boolean} asSubprotocol  keeps the token out of every access log on the way
 * @param {string} [after]         how far the output of the session before had come
 * @returns {{url: URL, protocols: string[]}}
 */
export function withToken(endpoint, token, asSubprotocol, after = '') {
  const url = new URL(endpoint);
  const protocols = [EVENTS, 'binary'];
  if (after) {
    url.searchParams.set('after', after);
  }
  if (asSubprotocol) {
    protocols.push(`token.${token}`);
  } else {
    url.searchParams.set('token', token);
  }
  return { url, protocols };
}

/**
 * The page POSTs to this URL with the cookies of whoever opened the link. So a link may only name what by its name
 * gives out tokens; it could otherwise name anything the host manager does on a POST, such as switching a guest off.
 * @param {string} tokenUrl
 * @returns {URL}
 */
export function checkedTokenUrl(tokenUrl) {
  const url = parse(tokenUrl, new URL(location.href));
  if (url.origin !== location.origin) {
    throw new Error(`This link wants its tokens from ${url.origin}; only ${location.origin} is allowed.`);
  }
  if (!/\/tokens?$/.test(url.pathname) || url.search) {
    throw new Error('The token_url of this link is not allowed: its path must end in /token or /tokens, with no query.');
  }
  return url;
}

/**
 * @param {string} reference
 * @param {URL} [base]
 */
function parse(reference, base) {
  try {
    return new URL(reference, base);
  } catch {
    throw new Error(`This link is damaged: “${reference}” is no address.`);
  }
}

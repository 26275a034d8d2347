/** What each WebSocket close code means: in words where the gateway sent none, and for what can be done next. */

/**
 * @typedef {object} Ending
 * @property {number} code
 * @property {string} sentence     fit to show
 * @property {boolean} tokenKept   the token was not spent and can be tried again
 * @property {boolean} passing     trying again may help without anybody's doing
 */

/** @type {Record<number, {sentence: string, tokenKept?: true, passing?: true}>} */
const ENDINGS = {
  1000: { sentence: 'The session has ended.' },
  1001: { sentence: 'The gateway is going away.', passing: true },
  1005: { sentence: 'The gateway ended the session and gave no reason.' },
  1006: { sentence: 'The connection to the gateway was lost.', passing: true },
  1009: { sentence: 'The gateway refused a message as too long.' },
  1011: { sentence: 'The gateway met an error it did not expect.', passing: true },
  1012: { sentence: 'The gateway is restarting.', passing: true },
  1013: { sentence: 'The gateway is too busy now.', passing: true },
  4400: { sentence: 'The gateway received no token.' },
  4401: { sentence: 'The token of this link is unknown, used, revoked or expired.' },
  4404: { sentence: 'This guest or its console does not exist, or no longer.' },
  4408: { sentence: 'The session was idle for too long, or reached its longest time.' },
  4409: { sentence: 'Somebody else is using this console.', tokenKept: true },
  4410: { sentence: 'Somebody else has taken over this console.' },
  4411: { sentence: 'The operator has closed this session.' },
  4412: { sentence: 'The process that held the console has ended unexpectedly.', passing: true },
  4413: { sentence: 'This client read too slowly.', passing: true },
  4429: { sentence: 'A limit on sessions is reached.', tokenKept: true, passing: true },
  4503: { sentence: 'The console service or libvirt is not available now.', tokenKept: true, passing: true },
};

/**
 * Browsers tell a page neither why a connection failed nor that its origin was refused: both are 1006 before opening.
 */
const UNREACHABLE = {
  sentence: 'The gateway cannot be reached, or does not accept connections from this page.',
  tokenKept: true,
  passing: true,
};

/**
 * @param {number} code
 * @param {string} reason   the gateway's, or ""
 * @param {boolean} opened  whether the WebSocket handshake had been completed
 * @returns {Ending}
 */
export function ending(code, reason, opened) {
  const known = code === 1006 && !opened ? UNREACHABLE : ENDINGS[code];
  return {
    code,
    sentence: reason || known?.sentence || 'The gateway closed the connection.',
    tokenKept: known?.tokenKept ?? false,
    passing: known?.passing ?? false,
  };
}

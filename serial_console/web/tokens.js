/** Where the next token comes from. A token opens one session and is spent then, so this knows which is still good. */

const TIMEOUT = 10_000;

/** Nobody answered, or not as they should: asking again later may help. */
export class TokensUnavailable extends Error {}

export class Tokens {
  /** @type {string} */
  #unused;
  /** Of a session that waits for its client: good for coming back to it. */
  #resumable = '';
  #request;

  /**
   * @param {string} token      one that was not used yet, or ""
   * @param {(() => Promise<string>) | null} request  gives a fresh one at each call
   */
  constructor(token, request) {
    this.#unused = token;
    this.#request = request;
  }

  /** Whether connecting can work. */
  get available() {
    return this.#unused !== '' || this.renewable;
  }

  /** Whether connecting can work after the unused token. */
  get renewable() {
    return this.#resumable !== '' || this.#request !== null;
  }

  /**
   * @returns {Promise<string>}
   * @throws {Error}  there is none; a TokensUnavailable where that may pass
   */
  async take() {
    const token = this.#unused || this.#resumable || (this.#request ? await this.#request() : '');
    this.#unused = '';
    return token;
  }

  /**
   * The gateway did not spend this token. Where fresh ones are to be had it is dropped: it may expire meanwhile.
   * @param {string} token
   */
  putBack(token) {
    if (this.#request === null && token !== this.#resumable) {
      this.#unused = token;
    }
  }

  /** The session of this token can be come back to. @param {string} token */
  keep(token) {
    this.#resumable = token;
  }

  /**
   * It cannot, any more.
   * @param {string} token
   * @returns {boolean}  whether it could before
   */
  forget(token) {
    const known = token === this.#resumable;
    if (known) {
      this.#resumable = '';
    }
    return known;
  }
}

/**
 * Asks a host manager for a token, with the cookies that the person has there.
 * @param {URL} url
 * @returns {Promise<string>}
 * @throws {Error}  it gave none; a TokensUnavailable where that may pass
 */
export async function requestToken(url) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, {
      method: 'POST',
      credentials: 'same-origin',
      headers: { Accept: 'application/json' },
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch {
    throw new TokensUnavailable(`There is no new token: ${url.pathname} cannot be reached.`);
  }
  if (response.status === 401 || response.status === 403) {
    throw new Error(`There is no new token: ${url.pathname} answered ${response.status}. You may have to sign in again.`);
  }
  if (response.status >= 500) {
    throw new TokensUnavailable(`There is no new token: ${url.pathname} answered ${response.status}.`);
  }
  const answer = response.ok ? await response.json().catch(() => null) : null;
  if (typeof answer?.token !== 'string' || answer.token === '') {
    throw new Error(`There is no new token: ${url.pathname} answered ${response.status} without one.`);
  }
  return answer.token;
}

/** Where the next token comes from. A token opens one session and is spent then, so this knows which is still good. */

const TIMEOUT = 10_000;

/** Nobody answered, or not as they should: asking again later may help. */
export class TokensUnavailable extends Error {}

export class Tokens {
  /** @type {string} */
  #unused;
  /** @type {URL | null} */
  #url;

  /**
   * @param {string} token      the link's, or ""
   * @param {URL | null} url    gives a fresh one on each POST
   */
  constructor(token, url) {
    this.#unused = token;
    this.#url = url;
  }

  /** Whether connecting can work. */
  get available() {
    return this.#unused !== '' || this.#url !== null;
  }

  /** @returns {Promise<string>} */
  async take() {
    const token = this.#unused || (this.#url ? await request(this.#url) : '');
    this.#unused = '';
    return token;
  }

  /**
   * The gateway did not spend this token. Where fresh ones are to be had it is dropped: it may expire meanwhile.
   * @param {string} token
   */
  putBack(token) {
    if (this.#url === null) {
      this.#unused = token;
    }
  }
}

/**
 * @param {URL} url
 * @returns {Promise<string>}
 */
async function request(url) {
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

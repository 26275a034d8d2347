/** The API's answers, asked for with one key. The key goes into a header and nowhere else. */

/**
 * @typedef {object} Console
 * @property {string} alias
 * @property {string} type       libvirt's
 * @property {boolean} supported
 */

/**
 * @typedef {object} Guest
 * @property {string} name
 * @property {string} uuid
 * @property {string} state
 * @property {Console[]} consoles
 * @property {string[]} sessions  ids
 */

/**
 * @typedef {object} Session
 * @property {string} id
 * @property {string} uuid        of the guest
 * @property {string} console     alias
 * @property {'rw' | 'ro'} mode
 * @property {string} user        or ""
 * @property {string} client      address and port
 * @property {string} state
 * @property {string} opened_at   RFC 3339
 * @property {number} idle        seconds
 */

/** Milliseconds: a little more than the API waits for the supervisor. */
const TIMEOUT = 20_000;

/** Seconds that a session waits for its page to come back when the network is away. */
const RESUME = 30;

/** A request that was refused, or failed; the message is fit to show. */
export class RestError extends Error {
  /**
   * @param {string} message
   * @param {string} code        of the problem document; "" where there is none
   * @param {number} retryAfter  seconds; 0: not said
   */
  constructor(message, code = '', retryAfter = 0) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export class Rest {
  #key;

  /** @param {string} key */
  constructor(key) {
    this.#key = key;
  }

  /**
   * Each request is a line in the audit log, so sessions are asked for only where there are any.
   * @returns {Promise<{guests: Guest[], sessions: Session[]}>}
   */
  async list() {
    const { guests } = await this.#ask('GET', 'v1/guests');
    const some = guests.some((/** @type {Guest} */ guest) => guest.sessions.length > 0);
    const { sessions } = some ? await this.#ask('GET', 'v1/sessions') : { sessions: [] };
    return { guests, sessions };
  }

  /**
   * @param {string} uuid  the guest's: its name may have changed
   * @param {{console: string, mode: 'rw' | 'ro', takeover: boolean, user: string}} asked
   * @returns {Promise<{page_url: string}>}
   */
  issue(uuid, asked) {
    return this.#ask('POST', `v1/guests/${encodeURIComponent(uuid)}/tokens`, { ...asked, resume: RESUME });
  }

  /** @param {string} id */
  close(id) {
    return this.#ask('DELETE', `v1/sessions/${encodeURIComponent(id)}`);
  }

  /**
   * @param {string} method
   * @param {string} path  relative to the page, which may stand behind a prefix
   * @param {object} [body]
   */
  async #ask(method, path, body) {
    /** @type {Response} */
    let response;
    /** @type {any} */
    let answer;
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method,
        headers: { Authorization: `Bearer ${this.#key}`, 'Content-Type': 'application/json' },
        body: body && JSON.stringify(body),
        cache: 'no-store',
        redirect: 'error',
        signal: AbortSignal.timeout(TIMEOUT),
      });
      answer = response.status === 204 ? {} : await response.json().catch(() => null);
    } catch {
      throw new RestError('The API cannot be reached.');
    }
    if (!response.ok) {
      const said = typeof answer?.detail === 'string' ? sentence(answer.detail) : '';
      const retryAfter = Number(response.headers.get('Retry-After')) || 0;
      throw new RestError(said || `The API answered ${response.status}.`, answer?.code, retryAfter);
    }
    if (answer === null) {
      throw new RestError('The API’s answer is not understood: is something else at this address?');
    }
    return answer;
  }
}

/** @param {string} detail  of a problem document */
function sentence(detail) {
  return `${detail[0]?.toUpperCase() ?? ''}${detail.slice(1)}${/[.!?]$/.test(detail) ? '' : '.'}`;
}

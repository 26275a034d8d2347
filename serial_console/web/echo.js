/** How much of what was sent has come back: the only sign that a guest on a serial line has taken it. */

/** Characters of output that are found again in what was sent after an echo was missed. */
const SAMPLE = 8;

export class Echo {
  #text;
  #seen = 0;
  #recent = '';

  /** @param {Uint8Array} data  all that is going to be sent */
  constructor(data) {
    this.#text = asLatin1(data);
  }

  /** Bytes that have come back. */
  get seen() {
    return this.#seen;
  }

  /**
   * Compares output with what was sent, in order. Other output may stand between; blanks and controls need not come
   * back, since terminals print them otherwise (a tab as spaces, ESC as ^[).
   * @param {Uint8Array} output
   * @param {number} sent  bytes
   */
  hear(output, sent) {
    const heard = this.#note(output);
    this.#skip(sent);
    for (const char of heard) {
      if (this.#seen < sent && char === this.#text[this.#seen]) {
        this.#seen++;
        this.#skip(sent);
      }
    }
  }

  /**
   * Finds the place again after something has not come back, such as a password.
   * @param {Uint8Array} output
   * @param {number} sent  bytes
   * @returns {boolean}    whether it did
   */
  find(output, sent) {
    this.#note(output);
    const at = this.#recent.length < SAMPLE ? -1 : this.#text.slice(0, sent).indexOf(this.#recent, this.#seen);
    if (at >= 0) {
      this.#seen = at + SAMPLE;
    }
    return at >= 0;
  }

  /** @param {Uint8Array} output */
  #note(output) {
    const heard = asLatin1(output).replaceAll('\n', ''); // Enter comes back as CR LF
    this.#recent = (this.#recent + heard).slice(-SAMPLE);
    return heard;
  }

  /** @param {number} sent */
  #skip(sent) {
    while (this.#seen < sent && this.#text[this.#seen] !== '\r' && this.#text[this.#seen] <= ' ') {
      this.#seen++;
    }
  }
}

/** A character for each byte. @param {Uint8Array} bytes */
function asLatin1(bytes) {
  return new TextDecoder('latin1').decode(bytes);
}

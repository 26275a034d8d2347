/** The bar above the terminal: the state, the reason, and the one next thing to do. */

/**
 * @typedef {object} Status
 * @property {'idle' | 'connecting' | 'connected' | 'waiting' | 'ended'} state
 * @property {string} label      the state in a word or two
 * @property {string} [reason]   a sentence
 * @property {number} [code]     WebSocket close code
 * @property {string} [advice]   a sentence: what to do when no button can help
 * @property {string} [action]   label of the button; none without it
 */

export class StatusBar {
  #status = element('status');
  #state = element('state');
  #reason = element('reason');
  #code = element('code');
  #advice = element('advice');
  #action = element('action');

  /** @param {() => void} act  the button's click */
  constructor(act) {
    this.#action.addEventListener('click', act);
  }

  /** @param {Status} status */
  show({ state, label, reason = '', code, advice = '', action = '' }) {
    this.#status.dataset.state = state;
    this.#status.dataset.code = code === undefined ? '' : String(code);
    this.#state.textContent = label;
    this.#reason.textContent = reason;
    this.#code.textContent = code === undefined ? '' : `(code ${code})`;
    this.#advice.textContent = advice;
    this.#action.textContent = action;
    this.#action.hidden = action === '';
  }
}

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`serial.html has no #${id}`);
  }
  return found;
}

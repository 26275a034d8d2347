/** What was printed, as a file: the text, the text with its colours, or a recording from now on. */

import { announce, element } from './dom.js';

/** Milliseconds that a browser may take to begin to read what it saves. */
const BEGIN = 60_000;

export class SaveMenu {
  #serial;
  #menu = element('save');
  #button = element('save-button');
  #record = element('save-record');
  /** @type {import('./recorder.js').Recorder | undefined} */
  #recorder;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticks;

  /** @param {import('./console.js').SerialConsole} serial */
  constructor(serial) {
    this.#serial = serial;
    const { screen } = serial;
    element('save-all').addEventListener('click', () => {
      screen.selectAll();
      this.#menu.hidePopover();
      serial.focus();
    });
    element('save-text').addEventListener('click', () => this.#save([screen.text()], 'text/plain', 'txt'));
    element('save-html').addEventListener('click', () => this.#save([screen.html()], 'text/html', 'html'));
    this.#record.addEventListener('click', () => (this.#recorder ? this.#recorder.stop() : this.#begin()));
  }

  /** Whether a recording is under way, which nothing has but this page. */
  get recording() {
    return this.#recorder !== undefined;
  }

  #begin() {
    const recorder = this.#serial.record();
    this.#recorder = recorder;
    recorder.addEventListener('end', () => this.#end(recorder), { once: true });
    this.#ticks = setInterval(() => this.#show(), 1000);
    this.#show();
    announce('Recording.');
  }

  /** @param {import('./recorder.js').Recorder} recorder */
  #end(recorder) {
    clearInterval(this.#ticks);
    this.#recorder = undefined;
    this.#save([recorder.stop()], 'application/x-asciicast', 'cast');
    this.#show();
    const said = recorder.full ? 'The recording became too long: it has ended and was saved.' : 'The recording is saved.';
    announce(said);
    if (recorder.full) {
      this.#serial.screen.note(said); // nobody may be looking at the menu
    }
  }

  #show() {
    const recorder = this.#recorder;
    this.#button.toggleAttribute('data-recording', recorder !== undefined);
    this.#button.textContent = recorder ? 'Recording' : 'Save';
    this.#record.textContent = recorder ? `Stop recording (${clock(recorder.elapsed)})` : 'Record from now on';
  }

  /**
   * @param {BlobPart[]} content
   * @param {string} type
   * @param {string} ending
   */
  #save(content, type, ending) {
    const { session } = this.#serial.status;
    const url = URL.createObjectURL(new Blob(content, { type }));
    const link = document.createElement('a');
    link.href = url;
    link.download = `${fileName(session?.guest ?? '', session?.console ?? '')}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), BEGIN);
  }
}

/**
 * @param {string} guest   a name that anybody may have given
 * @param {string} alias   of its console
 */
function fileName(guest, alias) {
  const now = new Date();
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000);
  const time = local.toISOString().slice(0, 19).replaceAll(':', '-');
  const parts = [guest || 'console', alias].map((part) => part.replace(/[^\w.-]+/g, '_').slice(0, 80)).filter(Boolean);
  return [...parts, time].join('-').replace(/^[.-]+/, '');
}

/** @param {number} seconds */
function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
}

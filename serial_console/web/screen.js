/** The terminal's screen: output in, what is typed out, all that a person can do with what was printed. */

import { bell } from './bell.js';
import { guardClipboard } from './clipboard.js';
import { BlinkingCursor } from './cursor.js';
import { Feed } from './feed.js';
import { guard } from './guard.js';
import { linkOpener } from './links.js';
import { reducedMotion } from './motion.js';
import { pacePainting } from './painting.js';
import { Parser } from './parser.js';
import { Renderer } from './renderer.js';
import { asHtml, asText } from './transcript.js';
import { withoutInlineStyle } from './strict-style.js';
import { theme, watchSystem } from './theme.js';
import { FitAddon } from './vendor/addon-fit.js';
import { SearchAddon } from './vendor/addon-search.js';
import { SerializeAddon } from './vendor/addon-serialize.js';
import { UnicodeGraphemesAddon } from './vendor/addon-unicode-graphemes.js';
import { WebLinksAddon } from './vendor/addon-web-links.js';
import { Terminal } from './vendor/xterm.js';

/**
 * @typedef {object} ScreenOptions
 * @property {number} fontSize      in pixels
 * @property {import('./theme.js').ThemeName} theme
 * @property {'block' | 'underline' | 'bar'} cursorStyle
 * @property {boolean} cursorBlink  while it takes keys
 * @property {'none' | 'visual' | 'sound'} bell
 * @property {number} scrollback    lines
 * @property {boolean} screenReader
 * @property {'auto' | 'dom'} renderer
 */

/**
 * @typedef {object} ScreenHooks
 * @property {(bytes: Uint8Array<ArrayBuffer>) => void} input   what was typed, and the terminal's answers
 * @property {() => boolean} congested                           whether such answers are to be dropped
 * @property {(url: URL) => Promise<boolean>} askLink            may this be opened in a new tab?
 * @property {(text: string) => Promise<boolean>} askClipboard   may the guest put this into the clipboard?
 * @property {(event: KeyboardEvent) => boolean} key             false: this key is not for the terminal
 */

/**
 * @typedef {object} FindOptions
 * @property {boolean} [caseSensitive]
 * @property {boolean} [wholeWord]
 * @property {boolean} [regex]
 * @property {boolean} [backwards]
 */

/** @type {ScreenOptions} */
const DEFAULTS = {
  fontSize: 14,
  theme: 'dark',
  cursorStyle: 'block',
  cursorBlink: !reducedMotion.matches,
  bell: 'visual',
  scrollback: 10_000,
  screenReader: false,
  renderer: 'auto',
};

/** WCAG's for text: guests choose colours for a background that they cannot know. */
const CONTRAST = 4.5;

const encoder = new TextEncoder();

/** Fires `size` when its columns or rows change, and `found`, a CustomEvent with `{index, count}`, when matches do. */
export class Screen extends EventTarget {
  #options = DEFAULTS;
  #live = false;
  /** Whether it follows its container. */
  #fitted = true;
  #container;
  #terminal;
  #feed;
  #parser;
  #renderer;
  #cursor;
  #search = new SearchAddon();
  #serialize = new SerializeAddon();
  #foundHow = '';
  #fitting = new FitAddon();
  #resizes = new ResizeObserver(() => this.#follow());
  #unwatchSystem = watchSystem(() => this.#paint());

  /**
   * @param {HTMLElement} container  is filled
   * @param {Partial<ScreenOptions>} options
   * @param {ScreenHooks} hooks
   */
  constructor(container, options, hooks) {
    super();
    this.#container = container;
    const openLink = linkOpener(hooks.askLink);
    const terminal = new Terminal({
      allowProposedApi: true, // graphemes, and the marks of what was found
      disableStdin: true,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
      linkHandler: { activate: openLink },
      logLevel: 'off', // a guest that prints DEL is an error to it, each time
      minimumContrastRatio: CONTRAST,
    });
    this.#terminal = terminal;
    guard(terminal, hooks.congested);
    guardClipboard(terminal, hooks.askClipboard);
    terminal.onData((text) => hooks.input(encoder.encode(text)));
    terminal.onBinary((latin1) => hooks.input(Uint8Array.from(latin1, (char) => char.charCodeAt(0))));
    terminal.onResize(() => this.dispatchEvent(new Event('size')));
    terminal.attachCustomKeyEventHandler((event) => {
      // A Mac's Option is the terminal's Meta; but many layouts have @, [, {, | or ~ there alone, which a shell needs.
      terminal.options.macOptionIsMeta = /^[^ -~]$/u.test(event.key);
      return hooks.key(event);
    });
    terminal.loadAddon(this.#fitting);
    terminal.loadAddon(new UnicodeGraphemesAddon());
    terminal.loadAddon(new WebLinksAddon(openLink));
    terminal.loadAddon(this.#search);
    terminal.loadAddon(this.#serialize);
    this.#search.onDidChangeResults(({ resultIndex: index, resultCount: count }) =>
      this.dispatchEvent(new CustomEvent('found', { detail: { index, count } })),
    );
    withoutInlineStyle(() => terminal.open(container));
    pacePainting(terminal);
    const ring = bell(/** @type {HTMLElement} */ (terminal.element));
    terminal.onBell(() => ring(this.#options.bell));

    this.#parser = new Parser(terminal);
    this.#feed = new Feed(
      (data) => this.#parser.parse(data),
      () => this.#parser.parsed(),
    );
    this.#cursor = new BlinkingCursor(terminal);
    this.#renderer = new Renderer(terminal, () => this.#blink());
    this.configure({ ...DEFAULTS, ...options });
    this.#resizes.observe(container);
  }

  /** xterm.js's own, for what this class has not. */
  get terminal() {
    return this.#terminal;
  }

  /** @param {Partial<ScreenOptions>} options  those that change */
  configure(options) {
    const { renderer } = this.#options;
    const all = { ...this.#options, ...options };
    this.#options = all;
    this.#terminal.options.fontSize = all.fontSize;
    this.#terminal.options.cursorStyle = all.cursorStyle;
    this.#terminal.options.scrollback = all.scrollback;
    this.#terminal.options.screenReaderMode = all.screenReader;
    this.#paint();
    this.setLive(this.#live);
    this.#follow();
    if (all.renderer !== renderer || 'renderer' in options) {
      this.#renderer.use(all.renderer);
    }
  }

  /**
   * @param {boolean} live  takes keys, and the cursor blinks
   */
  setLive(live) {
    this.#live = live;
    this.#terminal.options.disableStdin = !live;
    this.#blink();
  }

  /**
   * Shows output.
   * @param {Uint8Array} data
   * @param {(bytes: number) => void} [taken]  is told of each part that has been parsed, how many bytes it was
   */
  write(data, taken) {
    this.#feed.write(data, taken);
  }

  /** Bytes of output that are not parsed yet. */
  get backlog() {
    return this.#feed.backlog;
  }

  /** @param {string} text  is shown after what was written so far, as one dim line of ours */
  note(text) {
    this.#feed.then(() => this.#parser.note(text));
  }

  /** @param {string} text  the same, where output is missing */
  gap(text) {
    this.#feed.then(() => {
      this.#parser.breakOff();
      this.#parser.note(text);
    });
  }

  get cols() {
    return this.#terminal.cols;
  }

  get rows() {
    return this.#terminal.rows;
  }

  /** Follows the container's size from now on. */
  fit() {
    this.#fitted = true;
    this.#follow();
  }

  /**
   * Keeps this size from now on.
   * @param {number} cols
   * @param {number} rows
   */
  setSize(cols, rows) {
    this.#fitted = false;
    this.#terminal.resize(cols, rows);
  }

  /** Whether the guest asked for pastes to be marked as such. */
  get bracketedPaste() {
    return this.#terminal.modes.bracketedPasteMode;
  }

  /**
   * Selects the next match, and marks them all.
   * @param {string} text
   * @param {FindOptions} [options]
   * @returns {boolean}  whether there is one; false for a regex that is none
   */
  find(text, { backwards = false, ...options } = {}) {
    const decorations = {
      matchBackground: '#5c4a00',
      matchOverviewRuler: '#e0b450',
      activeMatchBackground: '#8a6200',
      activeMatchColorOverviewRuler: '#ffd97a',
    };
    const find = backwards ? this.#search.findPrevious : this.#search.findNext;
    const how = JSON.stringify(options);
    if (how !== this.#foundHow) {
      this.#foundHow = how;
      this.#search.clearDecorations(); // the addon marks anew for another text only
    }
    try {
      return find.call(this.#search, text, { ...options, decorations });
    } catch (error) {
      if (error instanceof SyntaxError) {
        return false;
      }
      throw error;
    }
  }

  clearFind() {
    this.#search.clearDecorations();
    this.#terminal.clearSelection();
  }

  selectAll() {
    this.#terminal.selectAll();
  }

  get selection() {
    return this.#terminal.getSelection();
  }

  clearSelection() {
    this.#terminal.clearSelection();
  }

  /** @returns {string}  what brings a terminal of this size to what this one shows, without what was scrolled away */
  serialize() {
    return this.#serialize.serialize({ scrollback: 0 });
  }

  /** @returns {string}  all that is kept, from the oldest line */
  text() {
    return asText(this.#terminal);
  }

  /** @returns {string}  the same as a page with its colours, which loads and runs nothing */
  html() {
    return asHtml(this.#terminal, theme(this.#options.theme));
  }

  focus() {
    this.#terminal.focus();
  }

  dispose() {
    this.#unwatchSystem();
    this.#resizes.disconnect();
    this.#feed.dispose();
    this.#renderer.dispose();
    this.#cursor.dispose();
    this.#terminal.dispose();
  }

  /** WebGL draws the cursor itself. */
  #blink() {
    const blinks = this.#live && this.#options.cursorBlink;
    this.#terminal.options.cursorBlink = blinks && this.#renderer.webgl;
    this.#cursor.blink(blinks && !this.#renderer.webgl);
  }

  #follow() {
    if (this.#fitted) {
      this.#fitting.fit();
    }
  }

  #paint() {
    const colours = theme(this.#options.theme);
    this.#terminal.options.theme = colours;
    // xterm.css has it black, which shows wherever the rows do not fill the container.
    const viewport = /** @type {HTMLElement} */ (this.#container.querySelector('.xterm-viewport'));
    viewport.style.backgroundColor = colours.background ?? '';
  }
}

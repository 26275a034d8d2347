/** The terminal: xterm.js and what it needs here. */

import { guard, openLink, writeInPieces } from './guard.js';
import { openWithoutInlineStyle } from './strict-style.js';
import { DARK } from './theme.js';
import { FitAddon } from './vendor/addon-fit.js';
import { Terminal } from './vendor/xterm.js';

const encoder = new TextEncoder();

/** Stands in until helper C's is there. */
export class Screen extends EventTarget {
  constructor(container, options, hooks) {
    super();
    this.terminal = new Terminal({ disableStdin: true, fontSize: options.fontSize ?? 14, linkHandler: { activate: openLink }, logLevel: 'off', scrollback: options.scrollback ?? 10_000, theme: DARK,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace' });
    guard(this.terminal, () => hooks.congested());
    this.terminal.onData((text) => hooks.input(encoder.encode(text)));
    this.terminal.onBinary((latin1) => hooks.input(Uint8Array.from(latin1, (char) => char.charCodeAt(0))));
    this.terminal.attachCustomKeyEventHandler((event) => hooks.key(event));
    const fit = new FitAddon();
    this.terminal.loadAddon(fit);
    openWithoutInlineStyle(this.terminal, container);
    this.terminal.onResize(() => this.dispatchEvent(new Event('size')));
    new ResizeObserver(() => this.fixed || fit.fit()).observe(container);
  }
  configure(options) { for (const name of ['fontSize', 'cursorStyle', 'cursorBlink', 'scrollback']) { if (name in options) { this.terminal.options[name] = options[name]; } } }
  write(data, taken) { writeInPieces(this.terminal, data.buffer); taken?.(data.length); }
  get backlog() { return 0; }
  note(text) { this.terminal.write(`\r\n\x1b[2m[${text}]\x1b[22m\r\n`); }
  setLive(live) { this.terminal.options.disableStdin = !live; this.terminal.options.cursorBlink = live; }
  fit() { this.fixed = false; }
  setSize(cols, rows) { this.fixed = true; this.terminal.resize(cols, rows); }
  get cols() { return this.terminal.cols; }
  get rows() { return this.terminal.rows; }
  get bracketedPaste() { return this.terminal.modes.bracketedPasteMode; }
  find() { return false; }
  clearFind() {}
  selectAll() { this.terminal.selectAll(); }
  get selection() { return this.terminal.getSelection(); }
  clearSelection() { this.terminal.clearSelection(); }
  text() { return ''; }
  html() { return ''; }
  focus() { this.terminal.focus(); }
  dispose() { this.terminal.dispose(); }
}

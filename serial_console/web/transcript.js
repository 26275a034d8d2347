/** All that a terminal keeps, to be saved: as text, and as HTML with its colours. */

/**
 * @typedef {import('@xterm/xterm').Terminal} Terminal
 * @typedef {import('@xterm/xterm').IBuffer} Buffer
 * @typedef {import('@xterm/xterm').IBufferCell} Cell
 * @typedef {import('@xterm/xterm').IBufferLine} Line
 */

/** Loads and runs nothing, whatever the guest has printed. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'";

/**
 * @param {Terminal} terminal
 * @returns {string}
 */
export function asText(terminal) {
  return collect(terminal, (line) => line.translateToString(true));
}

/**
 * @param {Terminal} terminal
 * @param {import('@xterm/xterm').ITheme} theme
 * @returns {string}
 */
export function asHtml(terminal, { background = '', foreground = '' }) {
  const palette = /** @type {any} */ (terminal)._core._themeService.colors.ansi;
  const cell = terminal.buffer.active.getNullCell();
  const css = (/** @type {Cell} */ of) => style(of, palette, foreground, background);
  const lines = collect(terminal, (line) => spans(line, cell, css));
  const body = `margin: 1em; background: ${background}; color: ${foreground}`;
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n' +
    `<meta http-equiv="Content-Security-Policy" content="${POLICY}">\n<title>Serial console</title>\n</head>\n` +
    `<body style="${body}">\n<pre style="white-space: pre-wrap; overflow-wrap: anywhere">\n${lines}</pre>\n</body>\n</html>\n`
  );
}

/**
 * The normal screen with its scrollback, and the alternate one where it is shown; without empty lines at the end.
 * @param {Terminal} terminal
 * @param {(line: Line) => string} render
 */
function collect(terminal, render) {
  const { normal, active } = terminal.buffer;
  const buffers = active === normal ? [normal] : [normal, active];
  return buffers
    .map((buffer) => rows(buffer, render).trimEnd() + '\n')
    .filter((text) => text !== '\n')
    .join('');
}

/**
 * Lines that the terminal had to wrap are one line again.
 * @param {Buffer} buffer
 * @param {(line: Line) => string} render
 */
function rows(buffer, render) {
  let text = '';
  for (let y = 0; y < buffer.length; y++) {
    const line = /** @type {Line} */ (buffer.getLine(y));
    text += (line.isWrapped || y === 0 ? '' : '\n') + render(line);
  }
  return text;
}

/**
 * @param {Line} line
 * @param {Cell} cell  is reused
 * @param {(cell: Cell) => string} css
 */
function spans(line, cell, css) {
  let html = '';
  let run = '';
  let style = '';
  const end = () => {
    html += style && run ? `<span style="${style}">${run}</span>` : run;
    run = '';
  };
  for (let x = 0; x < contentLength(line, cell); x++) {
    line.getCell(x, cell);
    const next = css(cell);
    if (next !== style) {
      end();
      style = next;
    }
    if (cell.getWidth() > 0) {
      run += escaped(cell.getChars() || ' ');
    }
  }
  end();
  return html;
}

/**
 * @param {Line} line
 * @param {Cell} cell
 */
function contentLength(line, cell) {
  let { length } = line;
  while (length > 0) {
    line.getCell(length - 1, cell);
    if (cell.getCode() !== 0 || !cell.isBgDefault() || cell.isInverse()) {
      break;
    }
    length--;
  }
  return length;
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

/**
 * @param {Cell} cell
 * @param {{css: string}[]} palette
 * @param {string} foreground  the default one
 * @param {string} background  likewise
 * @returns {string}           CSS
 */
function style(cell, palette, foreground, background) {
  if (cell.isAttributeDefault()) {
    return '';
  }
  // As xterm.js draws it.
  const bright = cell.isBold() && cell.isFgPalette() && cell.getFgColor() < 8 ? 8 : 0;
  let front = cell.isFgRGB() ? rgb(cell.getFgColor()) : palette[cell.getFgColor() + bright]?.css;
  let back = cell.isBgRGB() ? rgb(cell.getBgColor()) : palette[cell.getBgColor()]?.css;
  if (cell.isInverse()) {
    [front, back] = [back ?? background, front ?? foreground];
  }
  const lines = [cell.isUnderline() && 'underline', cell.isOverline() && 'overline', cell.isStrikethrough() && 'line-through'];
  const rules = [
    front && `color: ${front}`,
    back && `background: ${back}`,
    cell.isBold() && 'font-weight: bold',
    cell.isItalic() && 'font-style: italic',
    cell.isDim() && 'opacity: 0.5',
    cell.isInvisible() && 'visibility: hidden',
    lines.some(Boolean) && `text-decoration: ${lines.filter(Boolean).join(' ')}`,
  ];
  return rules.filter(Boolean).join('; ');
}

/** @param {number} colour */
function rgb(colour) {
  return `#${colour.toString(16).padStart(6, '0')}`;
}

// All that a terminal of xterm.js shows, as plain values: for the page and for the reference under node alike.

/** @param {import('@xterm/headless').Terminal} terminal */
export function cells(terminal) {
  const { active, normal } = terminal.buffer;
  const buffers = active === normal ? [normal] : [normal, active];
  const cell = normal.getNullCell();
  return {
    cursor: [active.cursorX, active.cursorY, active.baseY],
    modes: terminal.modes,
    lines: buffers.map((buffer) =>
      Array.from({ length: buffer.length }, (_, y) => {
        const line = buffer.getLine(y);
        const row = Array.from({ length: line.length }, (_, x) => {
          line.getCell(x, cell);
          const attributes = ['Bold', 'Dim', 'Italic', 'Underline', 'Blink', 'Inverse', 'Invisible', 'Strikethrough', 'Overline'];
          return [
            cell.getChars(),
            cell.getWidth(),
            cell.getFgColorMode() + cell.getFgColor(),
            cell.getBgColorMode() + cell.getBgColor(),
            attributes.filter((name) => cell[`is${name}`]()).join(),
          ].join('|');
        });
        return [line.isWrapped, ...row];
      }),
    ),
  };
}

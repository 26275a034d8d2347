/** The terminal's colours. All but black have a contrast of 4.5 or more to the background. */

/** @type {import('@xterm/xterm').ITheme} */
export const DARK = {
  background: '#11141a',
  foreground: '#d8dee6',
  cursor: '#d8dee6',
  cursorAccent: '#11141a',
  selectionBackground: '#3d5a80',
  black: '#2b313b',
  red: '#f0524f',
  green: '#7bc275',
  yellow: '#e0b450',
  blue: '#6aa5f0',
  magenta: '#c792ea',
  cyan: '#5bc4c9',
  white: '#c9d1d9',
  brightBlack: '#8b95a3',
  brightRed: '#ff8583',
  brightGreen: '#a5e29f',
  brightYellow: '#ffd97a',
  brightBlue: '#9cc7ff',
  brightMagenta: '#e0b8ff',
  brightCyan: '#8fe5ea',
  brightWhite: '#ffffff',
};

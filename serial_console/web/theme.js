/** The terminal's colours. All but black, in the light one white, have a contrast of 4.5 or more to the background. */

/** @typedef {'dark' | 'light' | 'system'} ThemeName */

/** @type {import('@xterm/xterm').ITheme} */
const DARK = {
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

/** @type {import('@xterm/xterm').ITheme} */
const LIGHT = {
  background: '#ffffff',
  foreground: '#1f2430',
  cursor: '#1f2430',
  cursorAccent: '#ffffff',
  selectionBackground: '#b6d0f5',
  black: '#1f2430',
  red: '#b3261e',
  green: '#2a6b2c',
  yellow: '#7a5600',
  blue: '#1d56b3',
  magenta: '#8a2d9e',
  cyan: '#0b6670',
  white: '#dfe3e8',
  brightBlack: '#5c6570',
  brightRed: '#c9302c',
  brightGreen: '#357a38',
  brightYellow: '#8a6200',
  brightBlue: '#2a69cc',
  brightMagenta: '#a03ab5',
  brightCyan: '#127782',
  brightWhite: '#f4f6f8',
};

const prefersLight = matchMedia('(prefers-color-scheme: light)');

/**
 * @param {ThemeName} name
 * @returns {import('@xterm/xterm').ITheme}
 */
export function theme(name) {
  return name === 'light' || (name === 'system' && prefersLight.matches) ? LIGHT : DARK;
}

/**
 * @param {() => void} changed  is called when the system's choice changes
 * @returns {() => void}        ends that
 */
export function watchSystem(changed) {
  prefersLight.addEventListener('change', changed);
  return () => prefersLight.removeEventListener('change', changed);
}

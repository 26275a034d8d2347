/** Full screen, where a browser can hand over the keys that it else keeps for itself. */

import { announce, element } from './dom.js';

/** Esc too, which else leaves the full screen instead of reaching the guest. */
const KEYS = ['Escape', 'KeyN', 'KeyT', 'KeyW'];

/** @param {import('./console.js').SerialConsole} serial */
export function offerFullScreen(serial) {
  /** TypeScript does not know it yet. @type {{lock(codes: string[]): Promise<void>} | undefined} */
  const keyboard = /** @type {any} */ (navigator).keyboard;
  if (keyboard === undefined || !document.fullscreenEnabled || parent !== window) {
    return;
  }
  element('fullscreen').hidden = false;
  element('fullscreen-button').addEventListener('click', async () => {
    element('size').hidePopover();
    try {
      await document.documentElement.requestFullscreen();
    } catch {
      announce('The browser allows no full screen now.');
      return;
    }
    serial.focus();
    keyboard.lock(KEYS).catch(() => announce('Full screen; but the browser keeps its keys.'));
  });
}

/**
 * The few chords that the page keeps for itself. All others go to the guest: Ctrl-W, Ctrl-T and Ctrl-N too, wherever the
 * browser lets the page have them.
 */

import { announce, element } from './dom.js';

/** @param {import('./console.js').SerialConsole} serial */
export function listenForShortcuts(serial) {
  // Tab is the guest's, so those who have no mouse need another way out (WCAG 2.1.2).
  serial.screen.terminal.textarea?.setAttribute('aria-description', 'Control F6 moves to the tools and back.');
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const chord = event.ctrlKey && !event.altKey && !event.metaKey;
    if (chord && !event.shiftKey && event.key === 'F6') {
      switchFocus(serial);
    } else if (chord && event.shiftKey && letter(event) === 'C') {
      copy(serial);
    } else {
      return;
    }
    event.preventDefault(); // Chromium's developer tools open by Ctrl-Shift-C
    event.stopPropagation();
  };
  addEventListener('keydown', onKey, { capture: true });
}

/** Where the alphabet is another, the one that a Latin keyboard has there. @param {KeyboardEvent} event */
function letter({ key, code }) {
  return /^[a-z]$/i.test(key) ? key.toUpperCase() : code.replace('Key', '');
}

/** @param {import('./console.js').SerialConsole} serial */
function switchFocus(serial) {
  if (element('terminal').contains(document.activeElement)) {
    element('tools').querySelector('button')?.focus();
  } else {
    serial.focus();
  }
}

/** @param {import('./console.js').SerialConsole} serial */
async function copy(serial) {
  const { selection } = serial.screen;
  if (selection === '') {
    return;
  }
  let copied = true;
  try {
    await navigator.clipboard.writeText(selection);
  } catch {
    // Without TLS there is no such clipboard, and in a frame it takes a permission. xterm.js answers the copy event.
    serial.focus();
    copied = document.execCommand('copy');
  }
  announce(copied ? 'The selection is copied.' : 'The browser lets this page copy nothing: use its own menu.');
}

/** What the terminal's bell does. A guest can ring thousands of times a second. */

import { reducedMotion } from './motion.js';

/** Milliseconds between two: more than three flashes a second can harm people. */
const PAUSE = 1000;

/** Milliseconds. */
const FLASH = 200;
const DIMMED = 500;

/** @type {AudioContext | undefined} */
let audio;

/**
 * @param {HTMLElement} element  flashes
 * @returns {(kind: 'none' | 'visual' | 'sound') => void}  rings
 */
export function bell(element) {
  let last = -PAUSE;
  return (kind) => {
    const now = performance.now();
    if (kind === 'none' || now - last < PAUSE) {
      return;
    }
    last = now;
    if (kind === 'visual' && reducedMotion.matches) {
      element.animate({ opacity: [0.7, 0.7] }, DIMMED);
    } else if (kind === 'visual') {
      element.animate({ opacity: [0.3, 1] }, FLASH);
    } else if (navigator.userActivation?.hasBeenActive) {
      beep(); // before a click or a key, browsers let no page sound
    }
  };
}

function beep() {
  audio ??= new AudioContext();
  const tone = new OscillatorNode(audio, { frequency: 880 });
  const volume = new GainNode(audio, { gain: 0.1 });
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.1);
}

/**
 * Keeps the page above an on-screen keyboard. Most browsers do that themselves (interactive-widget in serial.html);
 * Safari lays the keyboard over the page, and tells of it here alone.
 */
export function stayAboveKeyboard() {
  const { style } = document.documentElement;
  visualViewport?.addEventListener('resize', () => {
    const { height, scale } = /** @type {VisualViewport} */ (visualViewport);
    const covered = Math.round(innerHeight - height * scale);
    if (covered > 0) {
      style.setProperty('--covered', `${covered}px`);
      scrollTo(0, 0); // Safari scrolled, to show what has the focus
    } else {
      style.removeProperty('--covered');
    }
  });
}

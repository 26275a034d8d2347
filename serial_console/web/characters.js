/** Characters that cannot be seen, or that make a text look like another, and how they are shown instead. */

/** Control characters but tab and the ends of lines. ESC and what a terminal's keys send do things in the guest. */
export const CONTROLS = /(?![\t\n\r])\p{Cc}/gu;

/** What has no width or turns the direction of others. */
export const UNSEEN = /[\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Characters that are shown at most. */
const SHOWN = 50_000;

/** With a sign for each character that could not be seen. @param {string} text */
export function visible(text) {
  const shown = text
    .slice(0, SHOWN)
    .replace(CONTROLS, (char) => `‹${nameOf(char)}›`)
    .replace(UNSEEN, (char) => `‹${codeOf(char)}›`);
  return text.length > SHOWN ? `${shown}\n… and ${(text.length - SHOWN).toLocaleString('en')} more characters` : shown;
}

/** As the keyboard has it. @param {string} char */
export function nameOf(char) {
  const code = char.charCodeAt(0);
  if (char === '\x1b') {
    return 'Esc';
  }
  return code < 0x20 ? `Ctrl-${String.fromCharCode(0x40 + code)}` : code === 0x7f ? 'Delete' : codeOf(char);
}

/** @param {string} char */
function codeOf(char) {
  return `U+${Number(char.codePointAt(0)).toString(16).toUpperCase().padStart(4, '0')}`;
}

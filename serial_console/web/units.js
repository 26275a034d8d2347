/** Numbers as people read them. */

/** @param {number} bytes */
export function inBytes(bytes) {
  return `${bytes.toLocaleString('en')} byte${bytes === 1 ? '' : 's'}`;
}

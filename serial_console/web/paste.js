/** Sends a text to the guest as it can take it. */

export class Paste {
  /**
   * @param {import('./console.js').SerialConsole} serial
   * @param {string} text
   */
  constructor(serial, text) {
    serial.type(text);
  }
}

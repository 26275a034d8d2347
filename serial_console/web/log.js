/** The developer console, down to the level that the `logging` parameter names. */

/** @typedef {'error' | 'warn' | 'info' | 'debug'} Level */

/** @type {Level[]} */
const LEVELS = ['error', 'warn', 'info', 'debug'];

/**
 * @param {Level} level
 * @returns {Pick<Console, Level>}
 */
export function logger(level) {
  const log = { error() {}, warn() {}, info() {}, debug() {} };
  for (const name of LEVELS.slice(0, LEVELS.indexOf(level) + 1)) {
    log[name] = console[name].bind(console);
  }
  return log;
}

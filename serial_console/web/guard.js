/**
 * Keeps a guest's output from freezing the page. xterm.js 6 believes what it is told: one CSI 2147483647 S scrolls for
 * an hour, 1 MB of combining marks on one letter or a colour sequence of 1 MB hangs the browser. It has no public
 * setting against any of it, so this reaches behind its API; package.json pins its version, and
 * tests/integration/test_hostile_output.py fails where a bound no longer works.
 */

/** @typedef {import('@xterm/xterm').Terminal} Terminal */

/** UTF-16 units of one character with its marks; further ones are dropped. A family of four has 19, a flag 14. */
const MARKS = 32;

/** Characters of a colour sequence; the whole palette needs 3 KB. */
const COLOURS = 4096;

/** Lines of one hyperlink: xterm.js goes through all of them at each character. */
const LINK_LINES = 100;

/**
 * Beyond a screen none of these does anything more, and each is a loop. By final character.
 * @type {Record<string, (screen: {rows: number, cols: number}) => number>}
 */
const REPEATED = {
  L: ({ rows }) => rows, // insert lines
  M: ({ rows }) => rows, // delete lines
  S: ({ rows }) => rows, // scroll up
  T: ({ rows }) => rows, // scroll down
  I: ({ cols }) => cols, // tabs forward
  Z: ({ cols }) => cols, // tabs backward
  b: ({ cols, rows }) => cols * rows, // the last character again
};

/** OSC numbers of the sequences that set, ask for and reset colours. */
const COLOUR_SEQUENCES = [4, 10, 11, 12, 104, 110, 111, 112];

/**
 * @param {Terminal} terminal
 * @param {() => boolean} congested  whether answers to the guest's queries are to be dropped
 */
export function guard(terminal, congested) {
  const core = /** @type {any} */ (terminal)._core;
  for (const [final, most] of Object.entries(REPEATED)) {
    core.registerCsiHandler({ final }, (/** @type {{params: Int32Array}} */ { params }) => {
      params[0] = Math.min(params[0], most(terminal));
      return false; // on to its own handler
    });
  }
  for (const number of COLOUR_SEQUENCES) {
    terminal.parser.registerOscHandler(number, (data) => data.length > COLOURS);
  }
  limitMarks(core.buffer.lines.get(0));
  limitLinks(core._oscLinkService);

  // A guest that asks without end and does not read: the answers would pile up in the browser.
  const { coreService } = core;
  const triggerDataEvent = coreService.triggerDataEvent.bind(coreService);
  coreService.triggerDataEvent = (/** @type {string} */ data, /** @type {boolean} */ typed = false) => {
    if (typed || !congested()) {
      triggerDataEvent(data, typed);
    }
  };
}

/** What has its limit: all terminals of a page share it. @type {WeakSet<object>} */
const limited = new WeakSet();

/** @param {any} line  a line of the terminal's buffer */
function limitMarks(line) {
  const lines = Object.getPrototypeOf(line);
  if (limited.has(lines)) {
    return;
  }
  limited.add(lines);
  const { addCodepointToCell } = lines;
  lines.addCodepointToCell = function (/** @type {number} */ index, /** @type {number[]} */ ...mark) {
    if (!this.isCombined(index) || this._combined[index].length <= MARKS) {
      addCodepointToCell.call(this, index, ...mark);
    }
  };
}

/** @param {{addLineToLink(id: number, y: number): void, _dataByLinkId: Map<number, {lines: unknown[]}>}} links */
function limitLinks(links) {
  const addLineToLink = links.addLineToLink.bind(links);
  links.addLineToLink = (id, y) => {
    if ((links._dataByLinkId.get(id)?.lines.length ?? 0) < LINK_LINES) {
      addLineToLink(id, y);
    }
  };
}

/**
 * Has a flood painted less often than the display could show it. Browsers let painting go first: where a screen full of
 * colours takes 20 ms to paint, the 12 ms of parsing between two frames would be all that a flood gets.
 */

/** Time without painting after a frame, in times that the frame took. */
const SHARE = 2;

/** Milliseconds that the next frame waits at most. */
const LONGEST = 250;

/**
 * Reaches behind xterm.js's API; package.json pins its version.
 * @param {import('@xterm/xterm').Terminal} terminal  opened
 */
export function pacePainting(terminal) {
  const core = /** @type {any} */ (terminal)._core;
  const pace = new Pace();
  // All that xterm.js paints is asked for here, one frame at a time.
  core._renderService._renderDebouncer._coreBrowserService = {
    window: {
      requestAnimationFrame: (/** @type {FrameRequestCallback} */ paint) => pace.request(paint),
      cancelAnimationFrame: () => pace.cancel(),
    },
  };

  // Its hidden text field follows the cursor, for input methods; each time it does, the page is laid out again.
  const syncTextArea = core._syncTextArea.bind(core);
  let moved = false;
  core._syncTextArea = () => (moved = true);
  terminal.onRender(() => {
    if (moved) {
      moved = false;
      syncTextArea();
    }
  });

  // With each line that scrolls it paints all rows anew for the sake of the selection, be there none.
  const selection = core._selectionService;
  const refresh = selection.refresh.bind(selection);
  let shown = false;
  selection.refresh = (/** @type {boolean} */ byMouse) => {
    if (selection.hasSelection || shown) {
      shown = selection.hasSelection;
      refresh(byMouse);
    }
  };
}

class Pace {
  /** When the next frame is due. */
  #due = 0;
  #timer = 0;
  #frame = 0;
  #painted = new MessageChannel();

  /** @param {FrameRequestCallback} paint */
  request(paint) {
    const wait = this.#due - performance.now();
    const ask = () => {
      this.#frame = requestAnimationFrame((time) => this.#paint(paint, time));
    };
    if (wait > 0) {
      this.#timer = window.setTimeout(ask, wait);
    } else {
      ask();
    }
    return 1; // one at a time needs no number
  }

  cancel() {
    clearTimeout(this.#timer);
    cancelAnimationFrame(this.#frame);
  }

  /**
   * @param {FrameRequestCallback} paint
   * @param {number} time
   */
  #paint(paint, time) {
    const start = performance.now();
    // Comes when the browser has laid out and painted too.
    this.#painted.port1.onmessage = () => {
      const end = performance.now();
      this.#due = end + Math.min(SHARE * (end - start), LONGEST);
    };
    this.#painted.port2.postMessage(null);
    paint(time);
  }
}

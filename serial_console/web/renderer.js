/** Draws by WebGL where the machine does that in hardware; else, and after any failure, xterm.js draws by the DOM. */

import { withoutInlineStyle } from './strict-style.js';

/**
 * @typedef {import('@xterm/xterm').Terminal} Terminal
 * @typedef {import('@xterm/addon-webgl').WebglAddon} WebglAddon
 */

export class Renderer {
  #terminal;
  #changed;
  #wanted = false;
  /** @type {WebglAddon | null} */
  #webgl = null;

  /**
   * @param {Terminal} terminal     opened
   * @param {() => void} changed    is told when `webgl` has changed
   */
  constructor(terminal, changed) {
    this.#terminal = terminal;
    this.#changed = changed;
  }

  /** Whether WebGL draws now. */
  get webgl() {
    return this.#webgl !== null;
  }

  /** @param {'auto' | 'dom'} kind */
  async use(kind) {
    this.#wanted = kind === 'auto' && inHardware();
    if (!this.#wanted) {
      this.#fallBack();
      return;
    }
    try {
      const { WebglAddon } = await import('./vendor/addon-webgl.js');
      if (this.#wanted && this.#webgl === null) {
        const webgl = new WebglAddon();
        this.#webgl = webgl;
        webgl.onContextLoss(() => this.#fallBack());
        withoutInlineStyle(() => this.#terminal.loadAddon(webgl));
        this.#changed();
      }
    } catch (error) {
      console.info('serial console: drawing without WebGL:', error);
      this.#fallBack();
    }
  }

  dispose() {
    this.#wanted = false;
  }

  #fallBack() {
    const webgl = this.#webgl;
    this.#webgl = null;
    if (webgl !== null) {
      withoutInlineStyle(() => webgl.dispose());
      this.#changed();
    }
  }
}

/** Whether there is WebGL, and by hardware: in software it is slower than the DOM. */
function inHardware() {
  const context = document.createElement('canvas').getContext('webgl2', { failIfMajorPerformanceCaveat: true });
  if (context === null) {
    return false;
  }
  // Chromium takes its own SwiftShader for no caveat.
  const info = context.getExtension('WEBGL_debug_renderer_info');
  const name = context.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : context.RENDERER);
  context.getExtension('WEBGL_lose_context')?.loseContext(); // browsers have few of them to give
  return !/swiftshader|llvmpipe|softpipe|software/i.test(name);
}

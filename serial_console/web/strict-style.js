/**
 * Lets xterm.js work under the policy style-src 'self'.
 *
 * xterm.js 6 writes its colours and its cursor into <style> elements and true colours into style attributes. The policy
 * blocks both, and xterm.js knows no nonce. What a script does through the CSSOM is not blocked: so its <style> elements
 * become adopted style sheets, and its style attributes are set as cssText. Its own option documentOverride would be the
 * better place, but xterm.js 6.0 makes its text spans and its scrollbar's style in window.document all the same.
 */

/**
 * Opens a terminal, or changes what draws it. All <style> elements are made meanwhile; later they are only written to.
 * @param {() => void} action
 */
export function withoutInlineStyle(action) {
  HTMLSpanElement.prototype.setAttribute = setAttribute;
  const createElement = document.createElement;
  document.createElement = /** @param {string} name */ (name) => {
    const element = createElement.call(document, name === 'style' ? 'template' : name);
    if (name === 'style') {
      feedSheet(element);
    }
    return element;
  };
  try {
    action();
  } finally {
    document.createElement = createElement;
  }
}

/** @param {HTMLElement} element  stands in for a <style> */
function feedSheet(element) {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  let latest = '';
  let due = false;
  Object.defineProperty(element, 'textContent', {
    /** Once for all of a burst: a guest may change a colour thousands of times a second. @param {string} css */
    set: (css) => {
      latest = css;
      if (!due) {
        due = true;
        queueMicrotask(() => {
          due = false;
          sheet.replaceSync(latest);
        });
      }
    },
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((adopted) => adopted !== sheet);
    Element.prototype.remove.call(element);
  };
}

/**
 * To the same effect as Element's own, policy or not.
 * @this {HTMLSpanElement}
 * @param {string} name
 * @param {string} value
 */
function setAttribute(name, value) {
  if (name === 'style') {
    this.style.cssText = value;
  } else {
    Element.prototype.setAttribute.call(this, name, value);
  }
}

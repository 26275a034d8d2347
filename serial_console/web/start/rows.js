/** Lists that are brought up to date in place, so that focus and scrolling stay where they are. */

/**
 * @template T
 * @typedef {object} Row
 * @property {HTMLElement} element
 * @property {(item: T) => void} show
 */

/** @template T */
export class Rows {
  #list;
  #key;
  #make;
  /** @type {Map<string, Row<T>>} */
  #rows = new Map();

  /**
   * @param {HTMLElement} list
   * @param {(item: T) => string} key  what tells one item from another
   * @param {() => Row<T>} make
   */
  constructor(list, key, make) {
    this.#list = list;
    this.#key = key;
    this.#make = make;
  }

  /** @param {T[]} items  in order */
  show(items) {
    this.#drop(new Set(items.map(this.#key)));
    let next = this.#list.firstElementChild;
    for (const item of items) {
      const row = this.#rows.get(this.#key(item)) ?? this.#make();
      this.#rows.set(this.#key(item), row);
      if (row.element === next) {
        next = next.nextElementSibling;
      } else {
        this.#list.insertBefore(row.element, next);
      }
      row.show(item);
    }
    this.#list.hidden = items.length === 0;
  }

  /** @param {Set<string>} kept */
  #drop(kept) {
    for (const [key, { element }] of this.#rows) {
      if (!kept.has(key)) {
        if (element.contains(document.activeElement)) {
          const around = this.#list.closest('li') ?? this.#list;
          around.tabIndex = -1;
          around.focus({ preventScroll: true });
        }
        element.remove();
        this.#rows.delete(key);
      }
    }
  }
}

/**
 * Makes an element. Text is only ever set as text: names and users may be hostile.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} name  its class
 * @param {HTMLElement[]} children
 */
export function make(tag, name, ...children) {
  const element = document.createElement(tag);
  element.className = name;
  element.append(...children);
  return element;
}

/**
 * @param {string} name  its class
 * @param {() => void} click
 */
export function button(name, click) {
  const element = make('button', name);
  element.type = 'button';
  element.addEventListener('click', click);
  return element;
}

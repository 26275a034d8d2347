/** A question that must be answered before something is done that others feel. */

const dialog = /** @type {HTMLDialogElement} */ (document.getElementById('question'));

/**
 * @param {string} asked
 * @param {string} consequence
 * @param {string} yes  label of the button that does it
 * @param {() => void} act  called within the click, as opening a tab needs
 */
export function ask(asked, consequence, yes, act) {
  const part = (/** @type {string} */ id) => /** @type {HTMLElement} */ (dialog.querySelector(`#${id}`));
  part('asked').textContent = asked;
  part('consequence').textContent = consequence;
  part('yes').textContent = yes;
  part('no').onclick = () => dialog.close();
  part('yes').onclick = () => {
    dialog.close();
    act();
  };
  dialog.showModal();
  part('no').focus();
}

/** Whoever was asked can do it no more. */
export function withdraw() {
  dialog.close();
}

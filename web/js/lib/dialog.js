/** A modal dialog over the page; it is gone when it is closed. */

import { element } from "./dom.js";
import { t } from "./text.js";

let opened = 0;

export class Dialog {
  /**
   * @param {object} given
   * @param {Node[]} [given.before] tools before the title
   * @param {Node[]} [given.after] tools between the title and the button that closes
   * @param {(event: KeyboardEvent) => void} [given.onKey] hears keys; the graph never does
   * @param {() => boolean} [given.mayClose] asked before Escape, the button or a click outside closes
   */
  constructor({ before = [], after = [], onKey = () => {}, mayClose = () => true }) {
    const id = `scion-dialog-${++opened}`;
    this._mayClose = mayClose;
    this.title = element("h2", { id });
    this.body = element("div.scion-dialog-body");
    this.root = element(
      "dialog.scion.scion-dialog",
      {
        "aria-labelledby": id,
        on: {
          close: () => this.root.remove(),
          cancel: (event) => this._cancel(event),
          click: (event) => this._outside(event),
          keydown: (event) => {
            // The graph's own keys, such as the one that deletes a node, are not meant.
            event.stopPropagation();
            // A browser closes at the second Escape whatever the dialog says to the cancelling that follows.
            if (event.key === "Escape" && !event.isComposing && !this._mayClose()) event.preventDefault();
            onKey(event);
          },
        },
      },
      element(
        "div.scion-tools",
        {},
        ...before,
        this.title,
        ...after,
        toolButton("✕", t("close"), () => this._leave()),
      ),
      this.body,
    );
  }

  open() {
    document.body.append(this.root);
    this.root.showModal();
  }

  close() {
    this.root.close();
  }

  _leave() {
    if (this._mayClose()) this.close();
  }

  _cancel(event) {
    if (event.target === this.root && !this._mayClose()) event.preventDefault();
  }

  _outside(event) {
    if (event.target !== this.root) return;
    const { left, right, top, bottom } = this.root.getBoundingClientRect();
    const inside = event.clientX > left && event.clientX < right && event.clientY > top && event.clientY < bottom;
    if (!inside) this._leave();
  }
}

/**
 * @param {string} sign that is seen
 * @param {string} name that is read aloud and shown under the pointer
 * @param {() => void} act
 */
export function toolButton(sign, name, act) {
  return element("button.scion-button", { type: "button", text: sign, title: name, "aria-label": name, on: { click: act } });
}

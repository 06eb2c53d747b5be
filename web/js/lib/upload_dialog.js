/** The dialog that puts pictures and captions from this computer into a dataset. */

import { Dialog } from "./dialog.js";
import { element, setText, show } from "./dom.js";
import { bytes, count, counted, t } from "./text.js";
import { bytesOf, isDatasetName, send, sorted } from "./upload.js";

const SHOWN_MOST = 200;
const NAMES_MOST = 5;

/** @param {string[]} names */
function few(names) {
  const some = names.slice(0, NAMES_MOST).join(", ");
  return names.length > NAMES_MOST ? t("upload.more", { names: some, count: count(names.length - NAMES_MOST) }) : some;
}

export class UploadDialog {
  /**
   * @param {object} given
   * @param {import("./api.js").Routes} given.routes
   * @param {File[]} given.files
   * @param {string} given.name of the dataset that is proposed
   * @param {string[]} given.names of datasets that there are
   * @param {(name: string) => void} given.done something was written into this dataset
   */
  constructor(given) {
    this._given = given;
    this._files = sorted(given.files);
    this._abort = new AbortController();
    this._running = false;
    this.dialog = new Dialog({ mayClose: () => !this._running });
    setText(this.dialog.title, t("upload.title"));
    this.dialog.root.classList.add("scion-upload-dialog");
    this.dialog.root.addEventListener("close", () => this._abort.abort());
    this.dialog.body.append(...this._build());
    this._check();
  }

  open() {
    this.dialog.open();
    this._name.focus();
  }

  _build() {
    const { taken, left, twice } = this._files;
    const list = `${this.dialog.title.id}-names`;
    this._name = element("input", {
      type: "text",
      value: this._given.name,
      list,
      title: t("upload.intoTip"),
      on: { input: () => this._check(), keydown: (event) => event.key === "Enter" && this._start() },
    });
    this._wrong = element("div.scion-upload-wrong", { role: "alert" });
    this._replace = element("input", { type: "checkbox" });
    this._bar = element("progress", { max: Math.max(1, bytesOf(taken)), value: 0, "aria-label": t("upload.title") });
    this._told = element("span");
    this._button = element("button.scion-button", { type: "button", on: { click: () => this._press() } });
    this._result = element("div.scion-upload-result", { role: "status" });
    this._options = element(
      "div.scion-upload-options",
      {},
      element("label", {}, `${t("upload.into")} `, this._name),
      element("datalist", { id: list }, ...this._given.names.map((value) => element("option", { value }))),
      this._wrong,
      element("label", {}, this._replace, ` ${t("upload.replace")}`),
    );
    return [
      this._result,
      this._options,
      element("p", { text: counted("upload.files", taken.length, { bytes: bytes(bytesOf(taken)) }) }),
      this._buildList(taken),
      left.length ? element("p", { text: t("upload.left", { names: few(left) }) }) : "",
      twice.length ? element("p", { text: t("upload.twice", { names: few(twice) }) }) : "",
      element("div.scion-upload-foot", {}, this._button, this._bar, this._told),
    ];
  }

  _buildList(files) {
    const rows = files
      .slice(0, SHOWN_MOST)
      .map((file) => element("li", {}, element("span", { text: file.name }), element("span", { text: bytes(file.size) })));
    if (files.length > SHOWN_MOST) rows.push(element("li", { text: `… ${count(files.length - SHOWN_MOST)}` }));
    // It scrolls, so the keyboard has to get there.
    return element("ul.scion-upload-files", { tabindex: "0", "aria-label": t("upload.title") }, ...rows);
  }

  _check() {
    const good = isDatasetName(this._name.value.trim());
    setText(this._wrong, good ? "" : t("upload.badName"));
    show(this._wrong, !good);
    setText(this._button, t(this._running ? "upload.stop" : this._done ? "close" : "upload.start"));
    this._button.setAttribute("aria-disabled", String(!this._running && !this._done && !(good && this._files.taken.length)));
    show(this._bar, this._running);
    show(this._told, this._running);
    show(this._options, !this._running && !this._done);
    return good && this._files.taken.length > 0;
  }

  _press() {
    if (this._done) this.dialog.close();
    else if (this._running) this._abort.abort();
    else this._start();
  }

  async _start() {
    if (this._running || this._done || !this._check()) return;
    this._running = true;
    this._check();
    const name = this._name.value.trim();
    const total = bytes(bytesOf(this._files.taken));
    const result = await send(this._given.routes, name, this._files.taken, {
      replace: this._replace.checked,
      signal: this._abort.signal,
      told: (sent) => {
        this._bar.value = sent;
        setText(this._told, t("upload.progress", { done: bytes(sent), total }));
      },
    });
    this._running = false;
    this._done = true;
    this._renderResult(result);
    this._check();
    this._button.focus();
    // Also after a failure: what was written before is there, and what came to the server last may be.
    if (result.written.length || result.error) this._given.done(name);
  }

  _renderResult({ written, refused, error }) {
    const lines = [element("p", { text: counted("upload.written", written.length) })];
    if (error && this._abort.signal.aborted) lines.push(element("p", { text: t("upload.stopped") }));
    else if (error) {
      const message = error.message || t("upload.unreachable");
      lines.push(element("p", { text: `⚠ ${t("upload.failed", { message })}` }));
    }
    if (refused.length) lines.push(element("p", { text: `⚠ ${counted("upload.refused", refused.length)}` }));
    const rows = refused.map(({ name, why }) => element("li", { text: `${name} ${why}` }));
    this._result.replaceChildren(...lines, element("ul", {}, ...rows));
  }
}

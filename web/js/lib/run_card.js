/** A run in the list: its state, curve, best preview and file, and what can be done with it. */

import { element, setText, show } from "./dom.js";
import { atAGlance } from "./setting_words.js";
import { Sketch } from "./sketch.js";
import { stateText } from "./state.js";
import { bytes, count, loss, t, when } from "./text.js";

const CURVE_POINTS = 64;

/**
 * @typedef {object} Acts what the buttons do
 * @property {(row: import("../types").Listed) => void} preview
 * @property {(row: import("../types").Listed) => Promise<boolean|void>} goOn whether it is queued
 * @property {(row: import("../types").Listed) => void} open
 * @property {(row: import("../types").Listed) => void} copy
 * @property {(row: import("../types").Listed) => void} delete
 * @property {() => void} selected
 */

export class RunCard {
  /**
   * @param {import("../types").Listed} row
   * @param {Acts} acts
   * @param {(row: import("../types").Listed) => string} picture address of its preview
   */
  constructor(row, acts, picture) {
    this.row = row;
    this._acts = acts;
    this._picture = picture;
    /** What it trains now. @type {import("./store.js").View|null} */
    this._view = null;
    this._frame = 0;
    /** Whether going on was asked for and not answered yet. */
    this._asks = false;
    /** Whether it was queued from here, and waits. */
    this._queued = false;
    this._build();
  }

  get selected() {
    return this._box.checked;
  }

  set selected(selected) {
    this._box.checked = selected;
    this._renderSelected();
  }

  _build() {
    this._box = element("input", { type: "checkbox", on: { change: () => this._select() } });
    this._boxText = element("span");
    this._label = element("label.scion-run-select", {}, this._box, this._boxText);
    this._name = element("h3");
    this._status = element("span.scion-status");
    this._sketch = new Sketch();
    this._image = element("img", { alt: "", loading: "lazy", draggable: "false" });
    this._without = element("span");
    this._preview = this._button(() => this._acts.preview(this.row), "button.scion-run-preview");
    this._preview.append(this._image, this._without);
    this._failure = element("div.scion-run-failure");
    this._lines = Array.from({ length: 4 }, () => element("div.scion-run-line"));
    this._lora = element("span.scion-run-lora");
    this._id = element("div.scion-run-id");
    this._copy = this._button(() => this._acts.copy(this.row), "button.scion-button.scion-small");
    this._goOn = this._button(() => this._onGoOn());
    this._open = this._button(() => this._acts.open(this.row));
    this._delete = this._button(() => this._acts.delete(this.row));
    this.root = element(
      "li.scion-run",
      {},
      element("div.scion-run-head", {}, this._name, this._status),
      this._failure,
      element("div.scion-run-pictures", {}, this._preview, this._sketch.root),
      ...this._lines,
      element("div.scion-run-file", {}, this._lora, this._copy),
      this._id,
      element("div.scion-buttons", {}, this._goOn, this._open, this._delete, this._label),
    );
    this.render();
  }

  _button(act, tag = "button.scion-button.scion-small") {
    const button = element(tag, {
      type: "button",
      on: { click: () => button.getAttribute("aria-disabled") === "true" || act() },
    });
    return button;
  }

  /** A second press would queue it twice. */
  async _onGoOn() {
    this._asks = this._queued = true;
    this.render();
    const queued = await this._acts.goOn(this.row);
    this._asks = false;
    if (!queued) this._queued = false;
    this.render();
  }

  /** @param {number} remaining prompts in the host's queue: while there are any, this one may be among them */
  heardQueue(remaining) {
    const queued = remaining > 0 && (this._queued || this._asks);
    if (queued === this._queued) return;
    this._queued = queued;
    this.render();
  }

  _select() {
    this._renderSelected();
    this._acts.selected();
  }

  /** @param {import("../types").Listed} row what the server says now */
  update(row) {
    this.row = row;
    this.render();
  }

  /**
   * What trains it has changed.
   * @param {import("./store.js").View} view
   */
  follow(view) {
    this._view = view;
    if (view.live) this._queued = false;
    this._frame ||= requestAnimationFrame(() => {
      this._frame = 0;
      this.render();
    });
  }

  /** What trains it now, if anything on this server does. */
  get _live() {
    return this._view?.live ? this._view : null;
  }

  /** What is known of it beyond what the server said last: what trains it, or did until a moment ago. */
  get _newest() {
    return this._view && (this._view.live || this._view.step > this.row.step) ? this._view : null;
  }

  render() {
    const { row, _live: live, _newest: newest } = this;
    setText(this._name, row.name);
    setText(this._id, `${t("run")} ${row.run}`);
    setText(this._status, stateText(newest ?? { ...row, status: statusOf(row), live: row.active, phase: null }));
    this.root.classList.toggle("scion-run-live", Boolean(live) || row.active);
    this._renderFailure(row, newest);
    this._renderPictures(row, newest);
    this._renderLines(row, newest);
    this._renderFile(row);
    this._renderButtons(row, Boolean(live) || row.active);
    this._renderSelected();
  }

  _renderFailure(row, newest) {
    const told = newest ? newest.status === "failed" && newest.message : !row.active && row.failure;
    setText(this._failure, told || "");
    this._failure.title = told || "";
    show(this._failure, Boolean(told));
  }

  _renderPictures(row, newest) {
    const total = newest?.total || row.total;
    const curve = newest?.series.length ? pointsOf(newest.series, total) : row.curve;
    this._sketch.show(curve, total, t("runsCurve", { name: row.name }));
    const shown = row.preview !== null;
    this._preview.disabled = !shown;
    this._preview.title = shown ? t("runsPreview", { name: row.name }) : t("runsNoPreview");
    this._preview.setAttribute("aria-label", this._preview.title);
    setText(this._without, shown ? "" : t("runsNoPreview"));
    show(this._image, shown);
    const address = shown ? this._picture(row) : "";
    if ((this._image.getAttribute("src") ?? "") !== address) {
      if (address) this._image.setAttribute("src", address);
      else this._image.removeAttribute("src");
    }
  }

  _renderLines(row, newest) {
    const [glance, done, ended, numbers] = this._lines;
    setText(glance, atAGlance(row.settings));
    glance.title = t("runsGlanceTip");
    show(glance, Boolean(glance.textContent));
    const { step, total } = newest?.total ? newest : row;
    setText(done, `${t("runsSteps")} ${t("of", { done: count(step), total: count(total) })} · ${bytes(row.bytes)}`);
    setText(
      ended,
      row.finished_at && !newest
        ? t("runsEnded", { when: when(row.finished_at) })
        : t("runsStarted", { when: when(row.started_at) }),
    );
    const best = newest?.best ?? row.validation;
    const told = newest?.series.length ? newest.series.smoothed : row.loss;
    const parts = [
      told !== null && t("runsLossAt", { loss: loss(told) }),
      best && t("runsBestAt", { best: t("bestAt", { loss: loss(best.loss), step: count(best.step) }) }),
    ].filter(Boolean);
    setText(numbers, parts.join(" · "));
    show(numbers, parts.length > 0);
  }

  _renderFile(row) {
    setText(this._lora, row.lora ?? t("runsNoLora"));
    this._lora.title = row.lora ? t("runsLoraTip", { path: loraPath(row) }) : "";
    setText(this._copy, t("runsCopy"));
    this._copy.setAttribute("aria-label", t("runsCopyLora", { lora: row.lora ?? "" }));
    this._copy.title = this._lora.title;
    show(this._copy, row.lora !== null);
  }

  _renderButtons(row, trains) {
    const waits = this._asks || this._queued ? t("runsIsQueued") : "";
    const resume = row.failure ? "runsRetryTip" : "runsResumeTip";
    const missing = row.workflow ? "" : t("runsNoWorkflow");
    const goesOn = row.early || row.status !== "finished";
    show(this._goOn, goesOn && !trains);
    enable(
      this._goOn,
      t(row.early ? "goOn" : "runsResume"),
      row.early ? t("runsGoOnTip") : t(resume, { step: count(row.step) }),
      missing || waits,
    );
    enable(this._open, t("runsOpen"), t("runsOpenTip"), missing);
    enable(this._delete, t("runsDelete"), t("runsDeleteTip", { bytes: bytes(row.bytes) }), trains ? t("runsTrains") : "");
  }

  _renderSelected() {
    this._label.title = t("runsCompareHint");
    setText(this._boxText, t(this.selected ? "runsSelected" : "runsSelect"));
    this.root.classList.toggle("scion-run-selected", this.selected);
  }
}

/** @param {import("../types").Listed} row @returns {string} in the host's output folder */
export const loraPath = (row) => `scion/${row.run}/${row.lora}`;

/** @param {import("../types").Listed} row */
function statusOf(row) {
  if (row.active) return "training";
  return row.failure ? "failed" : row.status;
}

/** @returns {[number, number][]} */
function pointsOf(series, total) {
  const { step, loss: losses } = series.thin(CURVE_POINTS, 1, Math.max(total, series.last));
  return step.map((at, i) => [at, losses[i]]);
}

/** A button that cannot be used now stays reachable, and says why. */
function enable(button, name, tip, reason) {
  setText(button, name);
  button.title = reason || tip;
  button.setAttribute("aria-disabled", String(Boolean(reason)));
}

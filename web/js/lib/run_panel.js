/** What is shown of one run inside its node: state, chart, figures, previews, buttons. */

import { Chart } from "./chart.js";
import { PreviewDialog } from "./compare.js";
import { element, setText, show } from "./dom.js";
import { stateText, stateWord } from "./state.js";
import { bytes, count, loss, rate, span, speed, t } from "./text.js";

/** Where the browser keeps whether the loss is shown on a logarithmic scale. */
const LOG = "scion.log";
export const MIN_HEIGHT = 420;
/** Twice what is seen: the graph may be enlarged. */
const THUMBNAIL_HEIGHT = 224;
const FIGURES = /** @type {const} */ (["loss", "best", "epoch", "speed", "left", "learningRate", "memory"]);
const COMMANDS = /** @type {const} */ (["finish", "checkpoint", "sample"]);

export class RunPanel {
  /**
   * @param {import("./api.js").Routes} routes
   * @param {(text: string, severity: "info"|"error") => void} tell says how a button's wish went
   * @param {() => Promise<unknown>} queue queues the workflow
   */
  constructor(routes, tell, queue) {
    this._routes = routes;
    this._tell = tell;
    this._queue = queue;
    /** @type {import("./store.js").View|null} */
    this.view = null;
    this._asked = "";
    this._frame = 0;
    this._point = null;
    this._drawn = { version: -1, key: "" };
    this._strip = element("div.scion-strip", { role: "group", on: { pointerdown: (event) => event.stopPropagation() } });
    this._foot = element("div.scion-foot");
    this.root = element(
      "div.scion.scion-panel",
      { role: "group", "aria-label": "Scion", on: { keydown: (event) => event.stopPropagation() } },
      this._buildHead(),
      this._buildChart(),
      this._buildFigures(),
      this._strip,
      this._buildButtons(),
      this._foot,
    );
    this._chart = new Chart(this._canvas, (point) => {
      this._point = point;
      this._renderUnder();
    });
    this._setLog(Boolean(localStorage.getItem(LOG)));
    this.render();
  }

  /** @param {import("./store.js").View|null} view */
  show(view) {
    this.view = view;
    this._asked = "";
    this._point = null;
    this._drawn = { version: -1, key: "" };
    this.update();
  }

  /**
   * Shows with the next frame what has changed.
   * @param {string} [what] the event's name
   */
  update(what) {
    const answers = { checkpoint: "checkpoint", preview: "sample", finished: "finish", failed: this._asked, ended: this._asked };
    if (what && answers[what] === this._asked) {
      if (what === "checkpoint") this._tell(t("saidCheckpoint", { step: count(this.view.checkpoints.at(-1)) }), "info");
      this._asked = "";
    }
    this._frame ||= requestAnimationFrame(() => {
      this._frame = 0;
      this.render();
    });
  }

  attach() {
    this._chart.attach();
  }

  detach() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
    this._chart.detach();
  }

  _buildHead() {
    this._status = element("span.scion-status", { role: "status" });
    this._phase = element("span.scion-phase");
    this._bar = element("div.scion-bar", { role: "progressbar", "aria-valuemin": 0 }, element("div"));
    this._message = element("div.scion-message", { role: "note", tabindex: 0 });
    const head = element("div.scion-head", {}, this._status, this._phase);
    const all = document.createDocumentFragment();
    all.append(head, this._bar, this._message);
    return all;
  }

  _buildChart() {
    this._canvas = element("canvas", { tabindex: 0, role: "img" });
    this._empty = element("div.scion-empty");
    this._keys = [element("span.scion-key.scion-raw"), element("span.scion-key"), element("span.scion-key.scion-val")];
    this._logButton = element("button.scion-button.scion-small", {
      type: "button",
      on: { click: () => this._setLog(!this._log) },
    });
    const all = document.createDocumentFragment();
    all.append(
      element("div.scion-chart", {}, this._canvas, this._empty),
      element("div.scion-under", {}, element("div.scion-keys", {}, ...this._keys), this._logButton),
    );
    return all;
  }

  /** @param {boolean} log kept for all panels of this browser */
  _setLog(log) {
    this._log = log;
    this._logButton.setAttribute("aria-pressed", String(log));
    this._chart.log = log;
    localStorage.setItem(LOG, log ? "1" : "");
  }

  _buildFigures() {
    /** @type {Record<string, [HTMLElement, HTMLElement]>} */
    this._figures = {};
    for (const name of FIGURES) this._figures[name] = [element("dt"), element("dd")];
    return element("dl.scion-figures", {}, ...FIGURES.map((name) => element("div", {}, ...this._figures[name])));
  }

  _buildButtons() {
    /** @type {Record<string, HTMLElement>} */
    this._commands = {};
    for (const name of COMMANDS) this._commands[name] = this._button(() => this._command(name));
    this._goOn = this._button(() => this._continue());
    return element("div.scion-buttons", {}, ...Object.values(this._commands), this._goOn);
  }

  _button(act) {
    const button = element("button.scion-button", {
      type: "button",
      on: { click: () => button.getAttribute("aria-disabled") === "true" || act() },
    });
    return button;
  }

  async _command(name) {
    const { view } = this;
    this._asked = name;
    this.update();
    try {
      await this._routes.command(view.run, name);
    } catch (error) {
      this._asked = "";
      this._tell(error.message, "error");
      this.update();
    }
  }

  async _continue() {
    const { view } = this;
    try {
      await this._routes.goOn(view.run);
      await this._queue();
      Object.assign(view, { early: false, status: "waiting", message: "" });
      this._tell(t("saidGoOn", { step: count(view.step) }), "info");
    } catch (error) {
      this._tell(error.message, "error");
    }
    this.update();
  }

  /** Shows all, at once. */
  render() {
    this._renderHead();
    this._renderChart();
    this._renderUnder();
    this._renderFigures();
    this._renderStrip();
    this._renderButtons();
    const { view } = this;
    setText(this._foot, [view?.run && `${t("run")} ${view.run}`, view?.lora].filter(Boolean).join(" · "));
    this._foot.title = this._foot.textContent;
  }

  _renderHead() {
    const { view } = this;
    const phase = view?.phase;
    setText(this._status, view ? stateText(view) : "");
    const [done, total] = phase ? [phase.done, phase.total] : [view?.step ?? 0, view?.total ?? 0];
    const numbers = total ? t("of", { done: count(done), total: count(total) }) : "";
    setText(this._phase, this._asked ? t("asked", { what: t(this._asked) }) : numbers);
    show(this._bar, Boolean(view) && view.status !== "gone");
    const unknown = Boolean(view?.live) && !total;
    this._bar.classList.toggle("scion-unknown", unknown);
    this._bar.setAttribute("aria-label", view ? t(stateWord(view)) : "");
    this._bar.setAttribute("aria-valuemax", String(total));
    if (unknown) this._bar.removeAttribute("aria-valuenow");
    else this._bar.setAttribute("aria-valuenow", String(done));
    this._bar.style.setProperty("--share", String(total ? Math.min(1, done / total) : 0));
    const said = view ? [...remarks(view), view.message, ...view.warnings].filter(Boolean).join("\n") : "";
    show(this._message, Boolean(said));
    setText(this._message, said);
    this._message.classList.toggle("scion-long", view?.status === "failed");
  }

  _renderChart() {
    const { view } = this;
    const some = Boolean(view?.series.length);
    show(this._empty, !some);
    setText(this._empty, !view ? t("none") : view.live ? t("chartEmpty") : t("noLoss"));
    this._canvas.setAttribute("aria-label", t("chart", { said: this._summary() }));
    const key = JSON.stringify([view?.run, view?.total, view?.validation, view?.best]);
    if (this._drawn.version === view?.series.version && this._drawn.key === key) return;
    this._drawn = { version: view?.series.version ?? -1, key };
    this._chart.show(view && { series: view.series, validation: view.validation, best: view.best, total: view.total });
  }

  _summary() {
    const { view } = this;
    if (!view?.series.length) return t("chartEmpty");
    const parts = [`${t("lossSmooth")} ${loss(view.series.smoothed)}`];
    if (view.best) parts.push(`${t("best")} ${t("bestAt", { loss: loss(view.best.loss), step: count(view.best.step) })}`);
    return parts.join(", ");
  }

  /** The legend; with the values of the step under the pointer. */
  _renderUnder() {
    const { view } = this;
    const point = this._point;
    const [raw, smooth, validation] = this._keys;
    const valued = (name, value) => (point ? `${t(name)} ${loss(value)}` : t(name));
    setText(raw, point ? t("lossAt", { step: count(point.step), loss: loss(point.loss) }) : t("lossRaw"));
    setText(smooth, valued("lossSmooth", point?.smooth));
    setText(validation, point?.validation != null ? valued("validation", point.validation) : t("validation"));
    const some = Boolean(view?.series.length);
    for (const key of [raw, smooth]) show(key, some);
    show(validation, some && view.validation.length > 0);
    show(this._logButton, some);
    setText(this._logButton, t("log"));
    this._logButton.title = t("logTip");
  }

  _renderFigures() {
    const { view } = this;
    const { figures } = view ?? {};
    const epoch = figures?.epoch;
    const values = {
      loss: view?.series.length ? loss(view.series.smoothed) : "",
      best: view?.best ? t("bestAt", { loss: loss(view.best.loss), step: count(view.best.step) }) : "",
      epoch: epoch != null ? count(epoch) : "",
      speed: figures?.seconds_per_step ? speed(figures.seconds_per_step) : "",
      left: view?.live && figures?.seconds_left != null ? span(figures.seconds_left) : "",
      learningRate: figures?.learning_rate != null ? rate(figures.learning_rate) : "",
      memory: figures?.memory ? bytes(figures.memory) : "",
    };
    for (const name of FIGURES) {
      const [title, value] = this._figures[name];
      value.title = values[name];
      setText(title, t(name));
      setText(value, values[name]);
      show(title.parentElement, values[name] !== "");
    }
  }

  _renderStrip() {
    const { view } = this;
    const previews = view?.previews ?? [];
    show(this._strip, previews.length > 0);
    this._strip.setAttribute("aria-label", t("previews"));
    const key = JSON.stringify([view?.run, previews.map((one) => one.name)]);
    if (this._strip.dataset.key === key) return;
    this._strip.dataset.key = key;
    this._strip.replaceChildren(...previews.map((preview) => this._thumbnail(preview)));
    this._strip.scrollLeft = this._strip.scrollWidth;
  }

  _thumbnail(preview) {
    const name = t("openPreview", { step: count(preview.step) });
    const { run, prompt } = this.view;
    const address = (file) => this._routes.preview(run, file, prompt);
    const small = this._routes.preview(run, preview.name, prompt, THUMBNAIL_HEIGHT);
    const image = element("img", { src: small, alt: "", draggable: "false", loading: "lazy" });
    // Known before it is there: the strip is scrolled to its end at once.
    if (preview.width) image.style.aspectRatio = String((preview.width * preview.count) / preview.height);
    return element(
      "button",
      { type: "button", title: name, "aria-label": name, on: { click: () => new PreviewDialog(this.view, preview, address) } },
      image,
      element("span", { text: count(preview.step) }),
    );
  }

  _renderButtons() {
    const { view } = this;
    const trains = Boolean(view?.live);
    const reason = !trains
      ? t("nothingTrains")
      : !view.run
        ? t("notYet")
        : this._asked
          ? t("asked", { what: t(this._asked) })
          : "";
    for (const name of COMMANDS) {
      const button = this._commands[name];
      setText(button, t(name));
      button.setAttribute("aria-disabled", String(Boolean(reason)));
      button.title = reason || t(`${name}Tip`);
      show(button, trains || !view);
    }
    setText(this._goOn, t("goOn"));
    this._goOn.title = t("goOnTip");
    const ended = view && (view.early || ["stopped", "unfinished"].includes(view.status));
    show(this._goOn, Boolean(ended && !trains && view.run));
  }
}

/**
 * How a run's end is to be understood.
 * @param {import("./store.js").View} view
 */
function remarks({ live, status, early, byHand, trained, best }) {
  if (live) return [];
  if (status === "gone") return [t("goneHint")];
  if (["stopped", "unfinished"].includes(status)) return [t("queueAgain")];
  const worse = early && !byHand && best && t("noBetter", { step: count(best.step) });
  return status === "finished" ? [worse, !trained && t("finishedBefore")] : [];
}

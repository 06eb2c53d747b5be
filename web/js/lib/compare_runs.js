/** A dialog that lays runs over each other: one chart of their smoothed losses, and the settings in which they differ. */

import { STYLES, differ, differing, labels, smoothedAlike, smoothedAt } from "./comparison.js";
import { CurvesChart } from "./curves_chart.js";
import { Dialog } from "./dialog.js";
import { element, setText } from "./dom.js";
import { settingName, settingValue } from "./setting_words.js";
import { count, loss, t } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/** It lives until it is closed. */
export class CompareRuns {
  /**
   * @param {import("../types").Listed[]} rows two to four
   * @param {import("../types").History[]} histories theirs, with every setting
   * @param {import("../types").SettingNames} widgets
   */
  constructor(rows, histories, widgets) {
    this._names = labels(rows, widgets);
    this._widgets = widgets;
    this._histories = histories;
    const series = smoothedAlike(histories);
    this._curves = histories.map((history, i) => ({
      series: series[i],
      total: history.total,
      validation: /** @type {[number, number][]} */ (history.validation.filter(([, value]) => value !== null)),
    }));
    this._log = element("button.scion-button.scion-small", {
      type: "button",
      text: t("log"),
      title: t("logTip"),
      "aria-pressed": "false",
      on: { click: () => this._switchLog() },
    });
    this._dialog = new Dialog({ after: [this._log] });
    setText(this._dialog.title, t("runsCompareCount", { count: rows.length }));
    this._dialog.body.append(this._buildChart(), this._buildLegend(), this._buildTable());
    this._dialog.root.addEventListener("close", () => this._chart.detach());
    this._chart.attach();
    this._dialog.open();
  }

  _switchLog() {
    const log = this._log.getAttribute("aria-pressed") !== "true";
    this._log.setAttribute("aria-pressed", String(log));
    this._chart.log = log;
  }

  _buildChart() {
    const some = this._curves.some(({ series }) => series.length);
    const canvas = element("canvas", {
      tabindex: 0,
      role: "img",
      "aria-label": t("runsChart", { names: this._names.join(", ") }),
    });
    this._chart = new CurvesChart(canvas, this._curves, (step) => this._renderLegend(step));
    return element("div.scion-curves", {}, canvas, !some && element("div.scion-empty", { text: t("runsNoCurve") }));
  }

  _buildLegend() {
    this._step = element("span.scion-curves-step");
    this._keys = this._names.map(() => element("span"));
    const keys = this._keys.map((text, i) => element("li", {}, ...swatch(i), text));
    this._renderLegend(null);
    return element("div.scion-curves-legend", {}, element("ul", { "aria-live": "polite" }, ...keys), this._step);
  }

  /** @param {number|null} step that the pointer is at */
  _renderLegend(step) {
    setText(this._step, step === null ? "" : t("atStep", { step: count(step) }));
    for (const [i, name] of this._names.entries()) {
      // At its end a run has the loss that it has everywhere; the lines are all smoothed over the longest run's window.
      const value = step === null ? this._histories[i].loss : smoothedAt(this._curves[i].series, step);
      setText(this._keys[i], t("runsLossHere", { name, loss: loss(value) }));
    }
  }

  _buildTable() {
    const told = [this._stepsRow(), this._bestRow(), this._datasetRow()].filter((row) => row !== null);
    const different = differing(
      this._histories.map(({ settings }) => settings),
      this._widgets,
    );
    const settings = different.map(({ name, values }) =>
      tableRow(
        settingName(name, this._widgets),
        values.map((value) => settingValue(name, value)),
        name,
      ),
    );
    const head = element(
      "tr",
      {},
      element("th", { scope: "col", text: t("runsSetting") }),
      ...this._names.map((name, i) => element("th", { scope: "col" }, ...swatch(i), name)),
    );
    const table = element("table.scion-table", {}, element("thead", {}, head), element("tbody", {}, ...told, ...settings));
    return element("div.scion-table-scroll", { tabindex: 0 }, table, !different.length && element("p", { text: t("runsSame") }));
  }

  _stepsRow() {
    const steps = this._histories.map(({ step, total }) => t("of", { done: count(step), total: count(total) }));
    return tableRow(t("runsSteps"), steps);
  }

  _bestRow() {
    const told = this._histories.map(({ best }) => best && t("bestAt", { loss: loss(best.loss), step: count(best.step) }));
    return told.some(Boolean)
      ? tableRow(
          t("best"),
          told.map((best) => best ?? "–"),
        )
      : null;
  }

  _datasetRow() {
    const names = this._histories.map(({ dataset }) => dataset.map((name) => name || t("runsWired")).join(", "));
    return differ(names)
      ? tableRow(
          t("runsDataset"),
          names.map((name) => name || "–"),
        )
      : null;
  }
}

/** @param {string} name @param {string[]} values @param {string} [title] the setting's name in a recipe */
function tableRow(name, values, title) {
  return element("tr", {}, element("th", { scope: "row", text: name, title }), ...values.map((text) => element("td", { text })));
}

/** A piece of a run's line, with its mark. */
function swatch(index) {
  const { dash, sign } = STYLES[index];
  const picture = document.createElementNS(SVG, "svg");
  const stroke = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 34, y1: 5, y2: 5, "stroke-dasharray": dash.join(" ") })) {
    stroke.setAttribute(name, String(value));
  }
  picture.setAttribute("class", `scion-swatch scion-run-${index + 1}`);
  picture.setAttribute("viewBox", "0 0 34 10");
  picture.setAttribute("aria-hidden", "true");
  picture.append(stroke);
  return [picture, element(`span.scion-sign.scion-run-${index + 1}`, { "aria-hidden": "true", text: sign })];
}

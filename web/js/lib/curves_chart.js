/** A chart of several runs: their smoothed losses over step, and their validations as marks. */

import { STYLES, smoothedAt } from "./comparison.js";
import { MARK, Plot } from "./plot.js";
import { lossRange } from "./scale.js";
import { line, mark } from "./strokes.js";

/**
 * @typedef {object} Curve
 * @property {import("./series.js").Series} series
 * @property {[number, number][]} validation
 * @property {number} total
 */

export class CurvesChart {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Curve[]} curves at most as many as there are STYLES
   * @param {(step: number|null) => void} onStep hears which step the pointer or the arrow keys are at
   */
  constructor(canvas, curves, onStep) {
    this._curves = curves;
    this._onStep = onStep;
    /** @type {number|null} */
    this._at = null;
    this._plot = new Plot(canvas, (pen, colour) => this._paint(pen, colour));
    canvas.addEventListener("pointermove", (event) => this._select(this._plot.stepAt(event)));
    canvas.addEventListener("pointerleave", () => this._select(null));
    canvas.addEventListener("keydown", (event) => this._key(event));
    canvas.addEventListener("blur", () => this._select(null));
  }

  attach() {
    this._plot.attach();
  }

  detach() {
    this._plot.detach();
  }

  /** @param {boolean} log */
  set log(log) {
    this._plot.log = log;
  }

  get _last() {
    return Math.max(2, ...this._curves.map(({ series, total }) => Math.max(series.last, total)));
  }

  _paint(pen, colour) {
    const steps = /** @type {[number, number]} */ ([1, this._last]);
    const lines = this._curves.map(({ series }) => series.thin(this._plot.columns, ...steps));
    const smooth = lines.flatMap((points) => points.smooth);
    const marks = this._curves.flatMap(({ validation }) => validation.map(([, loss]) => loss));
    const range = lossRange({ loss: [], smooth }, marks, this._plot.log);
    if (!range) return;
    const { x, y } = this._plot.axes(pen, colour, steps, range);
    for (const [i, { validation }] of this._curves.entries()) {
      const style = STYLES[i];
      const own = colour.named(style.colour, colour.loss);
      line(pen, lines[i].step, lines[i].smooth, x, y, { colour: own, width: 2, dash: style.dash });
      for (const [step, loss] of validation) {
        if (Number.isFinite(y(loss))) mark(pen, style.mark, x(step), y(loss), MARK, colour.ground, own);
      }
    }
    if (this._at !== null) this._pointer(pen, colour, x, y);
  }

  _pointer(pen, colour, x, y) {
    this._plot.pointer(pen, colour, x(this._at));
    for (const [i, { series }] of this._curves.entries()) {
      const loss = smoothedAt(series, this._at);
      if (loss === null || !Number.isFinite(y(loss))) continue;
      const own = colour.named(STYLES[i].colour, colour.loss);
      mark(pen, "circle", x(this._at), y(loss), MARK - 1, own, own);
    }
  }

  _key(event) {
    const leap = Math.max(1, Math.round(this._last / (event.shiftKey ? 10 : 100)));
    const from = this._at ?? this._last;
    const moves = { ArrowLeft: from - leap, ArrowRight: from + leap, Home: 1, End: this._last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this._select(moves[event.key]);
  }

  /** @param {number|null} step */
  _select(step) {
    const at = step === null ? null : Math.min(this._last, Math.max(1, Math.round(step)));
    if (at === this._at) return;
    this._at = at;
    this._onStep(at);
    this._plot.draw();
  }
}

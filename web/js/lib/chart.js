/** A chart of the loss on a canvas: raw and smoothed line, validation as marks, values under the pointer. */

import { MARK, Plot } from "./plot.js";
import { lossRange } from "./scale.js";
import { line, mark, shade } from "./strokes.js";

/**
 * @typedef {object} Shown
 * @property {import("./series.js").Series} series
 * @property {[number, number][]} validation
 * @property {import("../types").Best|null} best
 * @property {number} total
 */

export class Chart {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(point: {step: number, loss: number, smooth: number, validation: number|null}|null) => void} onPoint hears what
   *   the pointer or the arrow keys are at
   */
  constructor(canvas, onPoint) {
    this._onPoint = onPoint;
    /** @type {Shown|null} */
    this._shown = null;
    this._at = -1;
    this._plot = new Plot(canvas, (pen, colour) => this._paint(pen, colour));
    canvas.addEventListener("pointermove", (event) => this._point(event));
    canvas.addEventListener("pointerleave", () => this._select(-1));
    canvas.addEventListener("keydown", (event) => this._key(event));
    canvas.addEventListener("blur", () => this._select(-1));
  }

  /** Follows the size of the canvas and the theme from now on. */
  attach() {
    this._plot.attach();
  }

  detach() {
    this._plot.detach();
  }

  /** @param {Shown|null} shown */
  show(shown) {
    this._shown = shown;
    this._plot.draw();
  }

  /** @param {boolean} log */
  set log(log) {
    this._plot.log = log;
  }

  get _steps() {
    const last = Math.max(this._shown.total, this._shown.series.last, 2);
    // A long run that has just begun would be a speck: the axis grows with it.
    const reached = Math.max(this._shown.series.last, this._shown.validation.at(-1)?.[0] ?? 0);
    return /** @type {[number, number]} */ ([1, reached < last / 4 ? Math.max(2, Math.min(last, reached * 4)) : last]);
  }

  _paint(pen, colour) {
    if (!this._shown?.series.length) return;
    const { series, validation } = this._shown;
    const steps = this._steps;
    const points = series.thin(this._plot.columns, steps[0], steps[1]);
    const marks = validation.map(([, loss]) => loss);
    const range = lossRange(points, marks, this._plot.log);
    if (!range) return;
    const { x, y, floor } = this._plot.axes(pen, colour, steps, range);
    this._raw(pen, colour, points, x, y);
    shade(pen, points.step, points.smooth, x, y, floor, colour.loss);
    line(pen, points.step, points.smooth, x, y, { colour: colour.loss, width: 2 });
    this._validation(pen, colour, x, y);
    this._pointer(pen, colour, x, y);
  }

  /** Faint: where many steps share a column, from the lowest to the highest of them. */
  _raw(pen, colour, points, x, y) {
    const clamp = (loss) => (this._plot.log && loss <= 0 ? NaN : loss);
    pen.globalAlpha = 0.25;
    pen.strokeStyle = colour.loss;
    pen.lineWidth = 1;
    pen.beginPath();
    points.step.forEach((step, i) => {
      const [low, high] = [clamp(points.low[i]), points.high[i]];
      if (high > low) {
        pen.moveTo(x(step), y(low));
        pen.lineTo(x(step), y(high));
      }
    });
    pen.stroke();
    pen.globalAlpha = 0.45;
    line(pen, points.step, points.loss.map(clamp), x, y, { colour: colour.loss, width: 1 });
    pen.globalAlpha = 1;
  }

  _validation(pen, colour, x, y) {
    const { validation, best } = this._shown;
    const usable = validation.filter(([, loss]) => Number.isFinite(loss) && (!this._plot.log || loss > 0));
    const [steps, losses] = [usable.map(([step]) => step), usable.map(([, loss]) => loss)];
    line(pen, steps, losses, x, y, { colour: colour.validation, width: 1.5, dash: [5, 4] });
    for (const [step, loss] of usable) {
      const top = best && step === best.step;
      mark(pen, "diamond", x(step), y(loss), MARK, top ? colour.validation : colour.ground, colour.validation);
      if (!top) continue;
      pen.strokeStyle = colour.text;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.arc(x(step), y(loss), 2 * MARK, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  _pointer(pen, colour, x, y) {
    const { series } = this._shown;
    if (this._at < 0 || this._at >= series.length) return;
    const at = x(series.step[this._at]);
    this._plot.pointer(pen, colour, at);
    if (Number.isNaN(series.smooth[this._at])) return;
    pen.fillStyle = colour.loss;
    pen.beginPath();
    pen.arc(at, y(series.smooth[this._at]), 3, 0, 2 * Math.PI);
    pen.fill();
  }

  _point(event) {
    if (this._shown?.series.length) this._select(this._shown.series.nearest(this._plot.stepAt(event)));
  }

  _key(event) {
    const length = this._shown?.series.length ?? 0;
    const leap = Math.max(1, Math.round(length / (event.shiftKey ? 10 : 100)));
    const from = this._at < 0 ? length - 1 : this._at;
    const moves = { ArrowLeft: from - leap, ArrowRight: from + leap, Home: 0, End: length - 1 };
    if (!length || !(event.key in moves)) return;
    event.preventDefault();
    this._select(Math.min(length - 1, Math.max(0, moves[event.key])));
  }

  _select(index) {
    if (index === this._at) return;
    this._at = index;
    this._onPoint(this._said(index));
    this._plot.draw();
  }

  _said(index) {
    if (index < 0 || !this._shown || index >= this._shown.series.length) return null;
    const { series, validation } = this._shown;
    const step = series.step[index];
    const reach = (this._steps[1] - this._steps[0]) / 50;
    let near = null;
    for (const point of validation) {
      const distance = Math.abs(point[0] - step);
      if (distance <= reach && (!near || distance < Math.abs(near[0] - step))) near = point;
    }
    return { step, loss: series.loss[index], smooth: series.smooth[index], validation: near?.[1] ?? null };
  }
}

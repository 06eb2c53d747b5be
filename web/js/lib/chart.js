/** A chart of the loss on a canvas: raw and smoothed line, validation as marks, values under the pointer. */

import { logTicks, lossRange, placed, ticks } from "./scale.js";

const MARGIN = { left: 46, right: 10, top: 8, bottom: 20 };
/** Sharp also where the graph is enlarged. */
const LEAST_DENSITY = 2;
const MARK = 4;

/**
 * Colours of the host's theme. Lines differ in dash and mark as well: no meaning hangs on colour alone.
 * @param {Element} element
 */
function colours(element) {
  const style = getComputedStyle(element);
  const named = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  return {
    text: named("--scion-text", "#ddd"),
    faint: named("--scion-muted", "#999"),
    grid: named("--scion-line", "#4e4e4e"),
    loss: named("--scion-loss", "#60a5fa"),
    validation: named("--scion-validation", "#f59e0b"),
    ground: named("--scion-ground", "#222"),
    font: style.fontFamily || "sans-serif",
  };
}

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
    this.canvas = canvas;
    this._onPoint = onPoint;
    /** @type {Shown|null} */
    this._shown = null;
    this._log = false;
    this._at = -1;
    this._size = [0, 0];
    this._frame = 0;
    this._resized = new ResizeObserver(([entry]) => this._resize(entry.contentRect));
    this._themed = new MutationObserver(() => this.draw());
    canvas.addEventListener("pointermove", (event) => this._point(event));
    canvas.addEventListener("pointerleave", () => this._select(-1));
    canvas.addEventListener("keydown", (event) => this._key(event));
    canvas.addEventListener("blur", () => this._select(-1));
  }

  /** Follows the size of the canvas and the theme from now on. */
  attach() {
    this._resized.observe(this.canvas);
    for (const root of [document.documentElement, document.body]) {
      this._themed.observe(root, { attributes: true, attributeFilter: ["class", "style"] });
    }
  }

  detach() {
    this._resized.disconnect();
    this._themed.disconnect();
    cancelAnimationFrame(this._frame);
    this._frame = 0;
  }

  /** @param {Shown|null} shown */
  show(shown) {
    this._shown = shown;
    this.draw();
  }

  /** @param {boolean} log */
  set log(log) {
    this._log = log;
    this.draw();
  }

  /** Draws with the next frame, once. */
  draw() {
    this._frame ||= requestAnimationFrame(() => {
      this._frame = 0;
      this._draw();
    });
  }

  _resize({ width, height }) {
    if (width === this._size[0] && height === this._size[1]) return;
    this._size = [width, height];
    this.draw();
  }

  /** Where the chart lies on the canvas, in its own pixels. */
  get _area() {
    const [width, height] = this._size;
    return { x: MARGIN.left, y: MARGIN.top, w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom };
  }

  get _steps() {
    const last = Math.max(this._shown.total, this._shown.series.last, 2);
    // A long run that has just begun would be a speck: the axis grows with it.
    const reached = Math.max(this._shown.series.last, this._shown.validation.at(-1)?.[0] ?? 0);
    return /** @type {[number, number]} */ ([1, reached < last / 4 ? Math.max(2, Math.min(last, reached * 4)) : last]);
  }

  _draw() {
    const [width, height] = this._size;
    const density = Math.max(window.devicePixelRatio || 1, LEAST_DENSITY);
    if (width < 20 || height < 20) return;
    const pen = this.canvas.getContext("2d");
    const [wide, high] = [Math.round(width * density), Math.round(height * density)];
    // A new size costs new memory, each time.
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    pen.setTransform(density, 0, 0, density, 0, 0);
    pen.clearRect(0, 0, width, height);
    const colour = colours(this.canvas);
    pen.font = `10px ${colour.font}`;
    if (!this._shown?.series.length) return;
    const { series, validation } = this._shown;
    const area = this._area;
    const steps = this._steps;
    const points = series.thin(Math.max(50, Math.round(area.w)), steps[0], steps[1]);
    const range = lossRange(
      points,
      validation.map(([, loss]) => loss),
      this._log,
    );
    if (!range) return;
    const [right, up] = [placed(steps, false), placed(range, this._log)];
    const x = (step) => area.x + right(step) * area.w;
    const y = (loss) => area.y + (1 - up(loss)) * area.h;
    this._axes(pen, colour, area, steps, range, x, y);
    pen.save();
    pen.beginPath();
    pen.rect(area.x, area.y - MARK, area.w + MARK, area.h + 2 * MARK);
    pen.clip();
    this._raw(pen, colour, points, x, y);
    shade(pen, points.step, points.smooth, x, y, area, colour.loss);
    line(pen, points.step, points.smooth, x, y, { colour: colour.loss, width: 2 });
    this._validation(pen, colour, x, y);
    this._pointer(pen, colour, area, x, y);
    pen.restore();
  }

  _axes(pen, colour, area, steps, range, x, y) {
    pen.strokeStyle = colour.grid;
    pen.fillStyle = colour.faint;
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const rows = Math.max(3, Math.round(area.h / 32));
    const values = this._log ? logTicks(range[0], range[1], rows) : ticks(range[0], range[1], rows);
    for (const value of values) {
      const at = Math.round(y(value)) + 0.5;
      pen.globalAlpha = 0.5;
      segment(pen, area.x, at, area.x + area.w, at);
      pen.globalAlpha = 1;
      pen.fillText(short(value), area.x - 5, at);
    }
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const step of ticks(steps[0], steps[1], Math.max(2, Math.round(area.w / 90)))) {
      if (!Number.isInteger(step)) continue;
      const text = step.toLocaleString();
      const half = pen.measureText(text).width / 2;
      const at = Math.min(x(step), area.x + area.w + MARGIN.right - half - 1);
      pen.fillText(text, at, area.y + area.h + 5);
    }
    segment(pen, area.x, area.y + area.h + 0.5, area.x + area.w, area.y + area.h + 0.5);
  }

  /** Faint: where many steps share a column, from the lowest to the highest of them. */
  _raw(pen, colour, points, x, y) {
    const clamp = (loss) => (this._log && loss <= 0 ? NaN : loss);
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
    const usable = validation.filter(([, loss]) => Number.isFinite(loss) && (!this._log || loss > 0));
    const [steps, losses] = [usable.map(([step]) => step), usable.map(([, loss]) => loss)];
    line(pen, steps, losses, x, y, { colour: colour.validation, width: 1.5, dash: [5, 4] });
    for (const [step, loss] of usable) {
      const top = best && step === best.step;
      diamond(pen, x(step), y(loss), MARK, top ? colour.validation : colour.ground, colour.validation);
      if (!top) continue;
      pen.strokeStyle = colour.text;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.arc(x(step), y(loss), 2 * MARK, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  _pointer(pen, colour, area, x, y) {
    const { series } = this._shown;
    if (this._at < 0 || this._at >= series.length) return;
    const at = x(series.step[this._at]);
    pen.strokeStyle = colour.text;
    pen.globalAlpha = 0.6;
    pen.lineWidth = 1;
    segment(pen, at, area.y, at, area.y + area.h);
    pen.globalAlpha = 1;
    if (Number.isNaN(series.smooth[this._at])) return;
    pen.fillStyle = colour.loss;
    pen.beginPath();
    pen.arc(at, y(series.smooth[this._at]), 3, 0, 2 * Math.PI);
    pen.fill();
  }

  /** The element may be scaled by the graph: the pointer is measured against what is seen. */
  _point(event) {
    if (!this._shown?.series.length) return;
    const seen = this.canvas.getBoundingClientRect();
    const at = ((event.clientX - seen.left) / seen.width) * this._size[0];
    const [from, to] = this._steps;
    const step = from + ((at - this._area.x) / this._area.w) * (to - from);
    this._select(this._shown.series.nearest(step));
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
    this.draw();
  }

  _said(index) {
    if (index < 0 || !this._shown || index >= this._shown.series.length) return null;
    const { series, validation } = this._shown;
    const step = series.step[index];
    const reach = (this._steps[1] - this._steps[0]) / 50;
    let near = null;
    for (const mark of validation) {
      const distance = Math.abs(mark[0] - step);
      if (distance <= reach && (!near || distance < Math.abs(near[0] - step))) near = mark;
    }
    return { step, loss: series.loss[index], smooth: series.smooth[index], validation: near?.[1] ?? null };
  }
}

function segment(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

/** A line with gaps where a value is no number. */
function line(pen, steps, values, x, y, { colour, width, dash = [] }) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.lineJoin = "round";
  pen.setLineDash(dash);
  pen.beginPath();
  let down = false;
  for (let i = 0; i < steps.length; i++) {
    const at = y(values[i]);
    if (!Number.isFinite(at)) down = false;
    else if (down) pen.lineTo(x(steps[i]), at);
    else {
      pen.moveTo(x(steps[i]), at);
      down = true;
    }
  }
  pen.stroke();
  pen.setLineDash([]);
}

/** A light ground below a line, which fades towards the axis. */
function shade(pen, steps, values, x, y, area, colour) {
  const shown = steps.map((step, i) => [x(step), y(values[i])]).filter(([, at]) => Number.isFinite(at));
  if (shown.length < 2) return;
  const top = Math.min(...shown.map(([, at]) => at));
  const fill = pen.createLinearGradient(0, top, 0, area.y + area.h);
  fill.addColorStop(0, `color-mix(in srgb, ${colour} 35%, transparent)`);
  fill.addColorStop(1, `color-mix(in srgb, ${colour} 4%, transparent)`);
  pen.fillStyle = fill;
  pen.beginPath();
  pen.moveTo(shown[0][0], area.y + area.h);
  for (const [right, down] of shown) pen.lineTo(right, down);
  pen.lineTo(shown.at(-1)[0], area.y + area.h);
  pen.fill();
}

function diamond(pen, x, y, radius, fill, stroke) {
  pen.beginPath();
  pen.moveTo(x, y - radius);
  pen.lineTo(x + radius, y);
  pen.lineTo(x, y + radius);
  pen.lineTo(x - radius, y);
  pen.closePath();
  pen.fillStyle = fill;
  pen.fill();
  pen.strokeStyle = stroke;
  pen.lineWidth = 1.5;
  pen.stroke();
}

function short(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(0) : String(Number(value.toPrecision(4)));
}

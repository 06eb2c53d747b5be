/** A canvas with axes of steps and losses. It follows the canvas' size and the host's theme. */

import { logTicks, placed, ticks } from "./scale.js";
import { segment } from "./strokes.js";

const MARGIN = { left: 46, right: 10, top: 8, bottom: 20 };
/** Sharp also where the graph is enlarged. */
const LEAST_DENSITY = 2;
/** Radius of a mark. */
export const MARK = 4;

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
    named,
    font: style.fontFamily || "sans-serif",
  };
}

/** @typedef {ReturnType<typeof colours>} Colours */

export class Plot {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(pen: CanvasRenderingContext2D, colour: Colours) => void} paint what is shown, beginning with `axes`
   */
  constructor(canvas, paint) {
    this.canvas = canvas;
    this._paint = paint;
    this._log = false;
    this._size = [0, 0];
    this._steps = /** @type {[number, number]} */ ([1, 2]);
    this._frame = 0;
    this._resized = new ResizeObserver(([entry]) => this._resize(entry.contentRect));
    this._themed = new MutationObserver(() => this.draw());
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

  get log() {
    return this._log;
  }

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

  /** How many points of a line can be told apart. */
  get columns() {
    return Math.max(50, Math.round(this._area.w));
  }

  /**
   * The step under the pointer. The element may be scaled by the graph: the pointer is measured against what is seen.
   * @param {{clientX: number}} event
   */
  stepAt(event) {
    const seen = this.canvas.getBoundingClientRect();
    const at = ((event.clientX - seen.left) / seen.width) * this._size[0];
    const [from, to] = this._steps;
    return from + ((at - this._area.x) / this._area.w) * (to - from);
  }

  /**
   * Draws the axes; what is drawn after them stays between them.
   * @param {CanvasRenderingContext2D} pen
   * @param {Colours} colour
   * @param {[number, number]} steps
   * @param {[number, number]} range of the losses
   * @returns where a step and a loss lie on the canvas, and where the axis of steps does
   */
  axes(pen, colour, steps, range) {
    const area = this._area;
    this._steps = steps;
    const [right, up] = [placed(steps, false), placed(range, this._log)];
    const x = (step) => area.x + right(step) * area.w;
    const y = (loss) => area.y + (1 - up(loss)) * area.h;
    this._losses(pen, colour, range, y);
    this._stepsBelow(pen, steps, x);
    pen.beginPath();
    pen.rect(area.x, area.y - MARK, area.w + MARK, area.h + 2 * MARK);
    pen.clip();
    return { x, y, floor: area.y + area.h };
  }

  /** A line from top to bottom, for what is under the pointer. */
  pointer(pen, colour, x) {
    pen.strokeStyle = colour.text;
    pen.globalAlpha = 0.6;
    pen.lineWidth = 1;
    segment(pen, x, this._area.y, x, this._area.y + this._area.h);
    pen.globalAlpha = 1;
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
    pen.save();
    this._paint(pen, colour);
    pen.restore();
  }

  _losses(pen, colour, range, y) {
    const area = this._area;
    pen.strokeStyle = colour.grid;
    pen.fillStyle = colour.faint;
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const rows = Math.min(7, Math.max(3, Math.round(area.h / 32)));
    for (const value of this._log ? logTicks(range[0], range[1], rows) : ticks(range[0], range[1], rows)) {
      const at = Math.round(y(value)) + 0.5;
      pen.globalAlpha = 0.5;
      segment(pen, area.x, at, area.x + area.w, at);
      pen.globalAlpha = 1;
      pen.fillText(short(value), area.x - 5, at);
    }
  }

  _stepsBelow(pen, steps, x) {
    const area = this._area;
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
}

function short(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(0) : String(Number(value.toPrecision(4)));
}

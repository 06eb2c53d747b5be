/** A small picture of a curve, without axes. */

const SVG = "http://www.w3.org/2000/svg";
export const WIDE = 200;
export const HIGH = 40;
const EDGE = 2;

/**
 * The corners of the line in a box of WIDE x HIGH.
 * @param {[number, number|null][]} curve losses by step
 * @param {number} total steps of the run: an unfinished run's line ends before the box does
 */
export function corners(curve, total) {
  const known = /** @type {[number, number][]} */ (curve.filter(([, loss]) => Number.isFinite(loss)));
  if (!known.length) return "";
  const losses = known.map(([, loss]) => loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const last = Math.max(total, known.at(-1)[0], 2);
  const x = (step) => (WIDE * (step - 1)) / (last - 1);
  const y = (loss) => (high > low ? EDGE + ((HIGH - 2 * EDGE) * (high - loss)) / (high - low) : HIGH / 2);
  return known.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
}

export class Sketch {
  constructor() {
    this.root = document.createElementNS(SVG, "svg");
    this._line = document.createElementNS(SVG, "polyline");
    for (const [name, value] of [
      ["class", "scion-sketch"],
      ["viewBox", `0 0 ${WIDE} ${HIGH}`],
      ["preserveAspectRatio", "none"],
      ["role", "img"],
    ])
      this.root.setAttribute(name, value);
    this.root.append(this._line);
  }

  /**
   * @param {[number, number|null][]} curve
   * @param {number} total
   * @param {string} name that is read aloud
   */
  show(curve, total, name) {
    const points = corners(curve, total);
    if (this._line.getAttribute("points") !== points) this._line.setAttribute("points", points);
    if (this.root.getAttribute("aria-label") !== name) this.root.setAttribute("aria-label", name);
  }
}

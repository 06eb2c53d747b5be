/** Strokes on a canvas: lines with gaps, the ground below them, and the marks of single points. */

export function segment(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

/** A line with gaps where a value is no number. */
export function line(pen, steps, values, x, y, { colour, width, dash = [] }) {
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

/**
 * A light ground below a line, which fades towards the axis.
 * @param {number} floor where the axis lies
 */
export function shade(pen, steps, values, x, y, floor, colour) {
  const shown = steps.map((step, i) => [x(step), y(values[i])]).filter(([, at]) => Number.isFinite(at));
  if (shown.length < 2) return;
  const top = Math.min(...shown.map(([, at]) => at));
  const fill = pen.createLinearGradient(0, top, 0, floor);
  fill.addColorStop(0, `color-mix(in srgb, ${colour} 35%, transparent)`);
  fill.addColorStop(1, `color-mix(in srgb, ${colour} 4%, transparent)`);
  pen.fillStyle = fill;
  pen.beginPath();
  pen.moveTo(shown[0][0], floor);
  for (const [right, down] of shown) pen.lineTo(right, down);
  pen.lineTo(shown.at(-1)[0], floor);
  pen.fill();
}

/** Corners of marks about a point, as parts of their radius; a mark without corners is a circle. */
const CORNERS = {
  diamond: [
    [0, -1],
    [1, 0],
    [0, 1],
    [-1, 0],
  ],
  square: [
    [-0.8, -0.8],
    [0.8, -0.8],
    [0.8, 0.8],
    [-0.8, 0.8],
  ],
  triangle: [
    [0, -1],
    [0.95, 0.8],
    [-0.95, 0.8],
  ],
  circle: [],
};

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {keyof typeof CORNERS} shape
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 * @param {string} fill
 * @param {string} stroke
 */
export function mark(pen, shape, x, y, radius, fill, stroke) {
  pen.beginPath();
  for (const [across, down] of CORNERS[shape]) pen.lineTo(x + across * radius, y + down * radius);
  if (shape === "circle") pen.arc(x, y, 0.9 * radius, 0, 2 * Math.PI);
  pen.closePath();
  pen.fillStyle = fill;
  pen.fill();
  pen.strokeStyle = stroke;
  pen.lineWidth = 1.5;
  pen.stroke();
}

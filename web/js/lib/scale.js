/** A chart's axes: which range they show, and where their ticks stand. */

/**
 * Round numbers in a range, 1, 2 or 5 times a power of ten apart.
 * @param {number} low
 * @param {number} high
 * @param {number} count about how many
 * @returns {number[]}
 */
export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * (1 - 1e-9)) ?? 10);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12) + step * 1e-9; i++) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

/**
 * 1, 2 and 5 times the powers of ten in a range, or plain round numbers where the range is narrow.
 * @param {number} low above 0
 * @param {number} high
 * @param {number} count about how many
 */
export function logTicks(low, high, count) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) {
      const value = Number((factor * 10 ** power).toPrecision(12));
      if (value >= low && value <= high) found.push(value);
    }
  }
  if (found.length < 2) return ticks(low, high, count);
  const decades = found.filter((value) => Number.isInteger(Math.log10(value)));
  return found.length > 2 * count && decades.length >= 2 ? decades : found;
}

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))];
}

/**
 * The losses to show: all of the smoothed line and of the marks, and of the raw losses but the farthest hundredths,
 * for a single outlier must not flatten the curve.
 * @param {{loss: number[], smooth: number[]}} points
 * @param {number[]} marks
 * @param {boolean} log
 * @returns {[number, number] | null} null where there is nothing to show
 */
export function lossRange(points, marks, log) {
  const usable = (value) => Number.isFinite(value) && (!log || value > 0);
  const raw = points.loss.filter(usable).sort((a, b) => a - b);
  const sure = [...points.smooth, ...marks].filter(usable);
  if (raw.length) sure.push(quantile(raw, 0.01), quantile(raw, 0.99));
  if (!sure.length) return null;
  const low = sure.reduce((a, b) => Math.min(a, b));
  const high = sure.reduce((a, b) => Math.max(a, b));
  if (log) {
    const margin = high > low ? (high / low) ** 0.06 : 1.2;
    return [low / margin, high * margin];
  }
  const margin = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
}

/**
 * Where a value lies in a range, 0 at its low and 1 at its high end.
 * @param {[number, number]} range
 * @param {boolean} log
 * @returns {(value: number) => number}
 */
export function placed([low, high], log) {
  if (!log) return (value) => (value - low) / (high - low);
  const [from, to] = [Math.log(low), Math.log(high)];
  return (value) => (Math.log(value) - from) / (to - from);
}

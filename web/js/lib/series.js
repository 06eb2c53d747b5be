/** The loss of a run, step by step: appended to as it trains, smoothed, and thinned to what a chart can show. */

const SHORTEST_WINDOW = 5;
const LONGEST_WINDOW = 500;
/** A run's smoothed line follows about this part of its steps. */
const WINDOW_SHARE = 1 / 50;

/**
 * Steps over which the loss is averaged, the time constant of an exponential moving average.
 * It hangs on the length of the run alone, so that the past of a curve does not change while it grows.
 * @param {number} total steps of the run
 */
export function smoothingWindow(total) {
  return Math.min(LONGEST_WINDOW, Math.max(SHORTEST_WINDOW, Math.round(total * WINDOW_SHARE)));
}

/**
 * First index of a rising array whose value is not below `value`.
 * @param {ArrayLike<number>} rising
 * @param {number} value
 * @param {number} [length] entries that count
 */
export function lowerBound(rising, value, length = rising.length) {
  let [low, high] = [0, length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rising[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

const FIRST_ROOM = 256;
const COLUMNS = /** @type {const} */ (["step", "loss", "low", "high", "smooth"]);

/** Losses by rising step. A loss that is no number (the run diverged) is NaN: a gap in the line. */
export class Series {
  /** @type {Float64Array} */ step;
  /** The mean, where a point stands for a few steps. @type {Float64Array} */ loss;
  /** @type {Float64Array} */ low;
  /** @type {Float64Array} */ high;
  /** @type {Float64Array} */ smooth;

  /** @param {number} [window] see smoothingWindow */
  constructor(window = SHORTEST_WINDOW) {
    this.length = 0;
    /** Step of the first loss that is a number. */
    this._begun = 0;
    this.window = window;
    /** Changes whenever the data does. */
    this.version = 0;
    for (const name of COLUMNS) this[name] = new Float64Array(FIRST_ROOM);
  }

  _reserve(capacity) {
    for (const name of COLUMNS) {
      const grown = new Float64Array(capacity);
      grown.set(this[name].subarray(0, this.length));
      this[name] = grown;
    }
  }

  /** The last step, or 0. */
  get last() {
    return this.length ? this.step[this.length - 1] : 0;
  }

  /** The last smoothed loss, or null. */
  get smoothed() {
    for (let i = this.length - 1; i >= 0; i--) if (!Number.isNaN(this.smooth[i])) return this.smooth[i];
    return null;
  }

  /**
   * Losses of steps one after the other. Steps that are there already are replaced, with all that came after them:
   * a run that goes on from a checkpoint takes its last steps anew.
   * @param {number} first step of the first loss
   * @param {(number|null)[]} losses
   */
  append(first, losses) {
    if (!losses.length) return;
    this._cut(first);
    for (const [index, loss] of losses.entries()) this._push(first + index, loss, loss, loss);
    this.version++;
  }

  /**
   * A run's history as the server gives it, each point the mean of a few steps with their lowest and highest loss.
   * It replaces what is here up to its last step; what came later meanwhile stays.
   * @param {{step: number[], loss: (number|null)[], low: (number|null)[], high: (number|null)[]}} history
   */
  merge(history) {
    if (!history.step.length) return;
    const from = lowerBound(this.step, history.step.at(-1) + 1, this.length);
    const kept = /** @type {const} */ (["step", "loss", "low", "high"]).map((name) => this[name].slice(from, this.length));
    this.length = 0;
    for (const [i, step] of history.step.entries()) this._push(step, history.loss[i], history.low[i], history.high[i]);
    for (let i = 0; i < kept[0].length; i++) this._push(kept[0][i], kept[1][i], kept[2][i], kept[3][i]);
    this.version++;
  }

  /** @param {number} window */
  smoothOver(window) {
    if (window === this.window) return;
    this.window = window;
    const length = this.length;
    this.length = 0;
    for (let i = 0; i < length; i++) this._push(this.step[i], this.loss[i], this.low[i], this.high[i]);
    this.version++;
  }

  _cut(step) {
    this.length = lowerBound(this.step, step, this.length);
  }

  _push(step, loss, low, high) {
    if (this.length === this.step.length) this._reserve(2 * this.length);
    const i = this.length++;
    this.step[i] = step;
    this.loss[i] = loss ?? NaN;
    this.low[i] = low ?? this.loss[i];
    this.high[i] = high ?? this.loss[i];
    this.smooth[i] = this._smoothed(i);
  }

  /**
   * An exponential moving average whose weight follows the distance in steps: after the first loss, of step a, the loss
   * x of step k moves the average s by (1 - exp(-d / min(k - a, w))) (x - s), where d steps have passed since the loss
   * before it and w is the window. The window grows from one step to its whole length, so that the beginning is nearly
   * a plain mean and no bias has to be taken out. trainer_core/engine/history.py computes the same for the list of runs.
   */
  _smoothed(i) {
    let before = i - 1;
    while (before >= 0 && Number.isNaN(this.smooth[before])) before--;
    const loss = this.loss[i];
    if (Number.isNaN(loss)) return NaN;
    if (before < 0) {
      this._begun = this.step[i];
      return loss;
    }
    const seen = this.step[i] - this._begun;
    const weight = -Math.expm1(-(this.step[i] - this.step[before]) / Math.min(seen, this.window));
    return this.smooth[before] + weight * (loss - this.smooth[before]);
  }

  /**
   * Index of the point nearest to a step; -1 when there is none.
   * @param {number} step
   */
  nearest(step) {
    const after = lowerBound(this.step, step, this.length);
    if (after === 0) return this.length ? 0 : -1;
    if (after === this.length) return after - 1;
    return step - this.step[after - 1] <= this.step[after] - step ? after - 1 : after;
  }

  /**
   * At most `columns` points: of each column of equal step width the mean, lowest, highest and last smoothed loss.
   * @param {number} columns
   * @param {number} from first step
   * @param {number} to last step
   */
  thin(columns, from, to) {
    const start = lowerBound(this.step, from, this.length);
    const end = lowerBound(this.step, to + 1, this.length);
    const count = end - start;
    /** @type {Record<typeof COLUMNS[number], number[]>} */
    const points = { step: [], loss: [], low: [], high: [], smooth: [] };
    if (count <= columns) {
      for (const name of COLUMNS) points[name] = Array.from(this[name].subarray(start, end));
      return points;
    }
    const width = (to - from + 1) / columns;
    let i = start;
    while (i < end) {
      const column = Math.floor((this.step[i] - from) / width);
      const first = i;
      let [sum, known, low, high, smooth] = [0, 0, Infinity, -Infinity, NaN];
      for (; i < end && Math.floor((this.step[i] - from) / width) === column; i++) {
        if (Number.isNaN(this.loss[i])) continue;
        sum += this.loss[i];
        known++;
        if (this.low[i] < low) low = this.low[i];
        if (this.high[i] > high) high = this.high[i];
        smooth = this.smooth[i];
      }
      points.step.push((this.step[first] + this.step[i - 1]) / 2);
      points.loss.push(known ? sum / known : NaN);
      points.low.push(known ? low : NaN);
      points.high.push(known ? high : NaN);
      points.smooth.push(smooth);
    }
    return points;
  }
}

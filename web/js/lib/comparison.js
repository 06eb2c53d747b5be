/** What several runs have in common and what not: their lines over the same steps, and their settings. */

import { Series, smoothingWindow } from "./series.js";

export const MOST = 4;
/** Lines differ in colour, dash and mark. */
export const STYLES = [
  { colour: "--scion-run-1", dash: [], mark: /** @type {const} */ ("diamond"), sign: "◇" },
  { colour: "--scion-run-2", dash: [8, 4], mark: /** @type {const} */ ("circle"), sign: "○" },
  { colour: "--scion-run-3", dash: [2, 3], mark: /** @type {const} */ ("square"), sign: "□" },
  { colour: "--scion-run-4", dash: [10, 3, 2, 3], mark: /** @type {const} */ ("triangle"), sign: "△" },
];

/**
 * Runs may have the same name: then their ids tell them apart.
 * @param {{run: string, name: string}[]} runs
 */
export function labels(runs) {
  return runs.map(({ run, name }) => (runs.filter((other) => other.name === name).length > 1 ? run : name));
}

/**
 * @param {import("../types").History[]} histories
 * @returns {Series[]} smoothed alike, or the shorter run would look the noisier
 */
export function smoothedAlike(histories) {
  const window = smoothingWindow(Math.max(...histories.map((history) => history.total)));
  return histories.map((history) => {
    const series = new Series(window);
    series.merge(history.series);
    return series;
  });
}

/**
 * The smoothed loss of a run at a step; null where it has none there.
 * @param {Series} series
 * @param {number} step
 */
export function smoothedAt(series, step) {
  const [first, last] = [series.step[0], series.last];
  // A point of a thinned history stands for the steps up to it.
  const slack = series.length > 1 ? (last - first) / (series.length - 1) : 0;
  if (!series.length || step < first - slack || step > last) return null;
  const value = series.smooth[series.nearest(step)];
  return Number.isNaN(value) ? null : value;
}

/**
 * The settings that are not the same in all runs.
 * @param {Record<string, unknown>[]} settings of each run
 * @returns {{name: string, values: unknown[]}[]} undefined where a run has no such setting
 */
export function differing(settings) {
  const names = new Set(settings.flatMap((one) => Object.keys(one)));
  return [...names]
    .sort()
    .map((name) => ({ name, values: settings.map((one) => one[name]) }))
    .filter(({ values }) => new Set(values.map((value) => JSON.stringify(value))).size > 1);
}

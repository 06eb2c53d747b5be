/** What several runs have in common and what not: their lines over the same steps, and their settings. */

import { Series, smoothingWindow } from "./series.js";
import { isUnset, settingName, settingValue } from "./setting_words.js";
import { when } from "./text.js";

export const MOST = 4;
/** Lines differ in colour, dash and mark. */
export const STYLES = [
  { colour: "--scion-run-1", dash: [], mark: /** @type {const} */ ("diamond"), sign: "◇" },
  { colour: "--scion-run-2", dash: [8, 4], mark: /** @type {const} */ ("circle"), sign: "○" },
  { colour: "--scion-run-3", dash: [2, 3], mark: /** @type {const} */ ("square"), sign: "□" },
  { colour: "--scion-run-4", dash: [10, 3, 2, 3], mark: /** @type {const} */ ("triangle"), sign: "△" },
];

/** So many settings fit into a label. */
const TOLD_MOST = 2;
/** The table has a row of its own for the steps. */
const STEPS = ["run.steps", "run.epochs"];

/**
 * Runs may have the same name: then the main settings in which they differ tell them apart, else when they began.
 * @param {Pick<import("../types").Listed, "run"|"name"|"settings"|"started_at">[]} runs
 * @param {import("../types").SettingNames} widgets
 */
export function labels(runs, widgets) {
  const differences = (run, alike) =>
    differing(
      alike.map(({ settings }) => settings),
      widgets,
    )
      .slice(0, TOLD_MOST)
      .map(({ name }) => ` · ${settingName(name, widgets)} ${settingValue(name, run.settings[name])}`);
  const ways = [
    ({ name }) => name,
    (run, alike) => [run.name, ...differences(run, alike)].join(""),
    ({ name, started_at }) => `${name} · ${when(started_at)}`,
    ({ run }) => run,
  ];
  return runs.map((run) => {
    const alike = runs.filter(({ name }) => name === run.name);
    const tells = ways.find((way) => new Set(alike.map((one) => way(one, alike))).size === alike.length);
    return tells(run, alike);
  });
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
 * The settings that are not the same in all runs, in the order of the widgets; how long the runs are is not among them.
 * @param {Record<string, unknown>[]} settings of each run
 * @param {import("../types").SettingNames} widgets
 * @returns {{name: string, values: unknown[]}[]} undefined where a run has no such setting
 */
export function differing(settings, widgets) {
  const names = new Set([...Object.keys(widgets), ...settings.flatMap((one) => Object.keys(one)).sort()]);
  return [...names]
    .filter((name) => !STEPS.includes(name))
    .map((name) => ({ name, values: settings.map((one) => one[name]) }))
    .filter(({ values }) => differ(values));
}

/** @param {unknown[]} values */
export function differ(values) {
  return new Set(values.map((value) => (isUnset(value) ? "" : JSON.stringify(value)))).size > 1;
}

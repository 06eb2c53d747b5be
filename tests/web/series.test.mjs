import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Series, lowerBound, smoothingWindow } from "../../web/js/lib/series.js";

const column = (series, name) => Array.from(series[name].subarray(0, series.length));

function long(count) {
  const series = new Series(smoothingWindow(count));
  for (let first = 1; first <= count; first += 1000) {
    series.append(
      first,
      Array.from({ length: 1000 }, (_, i) => 1 / (first + i) + ((first + i) % 7) / 100),
    );
  }
  return series;
}

test("steps taken anew replace the old ones and all after them", () => {
  const series = new Series();
  series.append(1, [5, 4, 3, 2]);
  series.append(3, [7]);
  assert.deepEqual(column(series, "step"), [1, 2, 3]);
  assert.deepEqual(column(series, "loss"), [5, 4, 7]);
});

test("history replaces what it covers and keeps what came later meanwhile", () => {
  const series = new Series();
  series.append(9, [1, 2, 3]);
  series.merge({ step: [2, 6, 10], loss: [8, 7, 6], low: [5, 5, 5], high: [9, 9, 9] });
  assert.deepEqual(column(series, "step"), [2, 6, 10, 11]);
  assert.deepEqual(column(series, "loss"), [8, 7, 6, 3]);
  assert.deepEqual(column(series, "low"), [5, 5, 5, 3]);
});

test("a thinned history replaces the exact steps it stands for; an empty one changes nothing", () => {
  const series = new Series();
  series.append(1, [9, 9, 9, 9]);
  series.merge({ step: [2, 4], loss: [4, 3], low: [4, 3], high: [4, 3] });
  series.merge({ step: [], loss: [], low: [], high: [] });
  assert.deepEqual(column(series, "step"), [2, 4]);
  assert.deepEqual(column(series, "loss"), [4, 3]);
});

test("the smoothed line begins as the plain mean and then follows over its window", () => {
  const series = new Series(10);
  series.append(1, [2, 4]);
  assert.ok(Math.abs(series.smooth[0] - 2) < 1e-12);
  assert.ok(series.smooth[1] >= 3 && series.smooth[1] < 4);
  const jump = new Series(10);
  jump.append(1, [...Array(100).fill(1), ...Array(10).fill(0)]);
  assert.ok(Math.abs(jump.smoothed - Math.exp(-1)) < 1e-9); // one time constant after the jump
});

test("a loss that is no number leaves a gap and does not poison what follows", () => {
  const series = new Series();
  series.append(1, [1, null, 1]);
  assert.deepEqual(column(series, "loss"), [1, NaN, 1]);
  assert.deepEqual(column(series, "smooth"), [1, NaN, 1]);
  series.append(4, [null]);
  assert.equal(series.smoothed, 1);
});

test("thinning keeps each column's mean, lowest and highest", () => {
  const series = new Series();
  series.append(1, [1, 2, 3, 4, 5, 6, 7, 80]);
  const thin = series.thin(2, 1, 8);
  assert.deepEqual(thin.step, [2.5, 6.5]);
  assert.deepEqual(thin.loss, [2.5, 24.5]);
  assert.deepEqual(thin.low, [1, 5]);
  assert.deepEqual(thin.high, [4, 80]);
});

test("few points are shown as they are", () => {
  const series = new Series();
  series.append(1, [3, 2, 1]);
  assert.deepEqual(series.thin(300, 1, 100).loss, [3, 2, 1]);
});

test("100,000 steps are thinned to the chart's width, spikes kept, in a few milliseconds", () => {
  const series = long(100_000);
  series.append(100_001, [9]);
  assert.equal(series.length, 100_001);
  const begun = performance.now();
  for (let i = 0; i < 10; i++) series.thin(400, 1, 100_001);
  const each = (performance.now() - begun) / 10;
  const thin = series.thin(400, 1, 100_001);
  assert.equal(thin.step.length, 400);
  assert.equal(Math.max(...thin.high), 9);
  assert.ok(each < 33, `${each} ms`);
});

test("the point nearest to a step is found", () => {
  const series = new Series();
  assert.equal(series.nearest(4), -1);
  series.merge({ step: [10, 20, 40], loss: [1, 1, 1], low: [1, 1, 1], high: [1, 1, 1] });
  assert.deepEqual(
    [-5, 14, 16, 31, 99].map((step) => series.step[series.nearest(step)]),
    [10, 10, 20, 40, 40],
  );
});

test("the window hangs on the length of the run, within bounds", () => {
  assert.deepEqual([10, 1000, 1e6].map(smoothingWindow), [5, 20, 500]);
  assert.equal(lowerBound([1, 3, 5], 4), 2);
});

test("the end of the smoothed line is the number that the server tells of the run", () => {
  const { runs } = JSON.parse(readFileSync(new URL("smoothed.json", import.meta.url), "utf8"));
  for (const { total, losses, smoothed } of runs) {
    const live = new Series(smoothingWindow(total));
    live.append(1, losses);
    assert.ok(Math.abs(live.smoothed - smoothed) < 1e-12, `${live.smoothed} is not ${smoothed}`);
    // As after a reload: the history has no steps without a loss.
    const step = losses.flatMap((loss, i) => (loss === null ? [] : [i + 1]));
    const loss = losses.filter((one) => one !== null);
    const history = new Series(smoothingWindow(total));
    history.merge({ step, loss, low: loss, high: loss });
    assert.ok(Math.abs(history.smoothed - smoothed) < 1e-12);
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { logTicks, lossRange, placed, ticks } from "../../web/js/lib/scale.js";

test("ticks are round and within the range", () => {
  assert.deepEqual(ticks(0.03, 0.31, 3), [0.1, 0.2, 0.3]);
  assert.deepEqual(ticks(0, 1200, 4), [0, 500, 1000]);
  assert.deepEqual(ticks(2, 2, 4), [2]);
});

test("a log axis ticks at decades, or at round numbers where it is narrow", () => {
  assert.deepEqual(logTicks(0.001, 2, 2), [0.001, 0.01, 0.1, 1]);
  assert.deepEqual(logTicks(0.09, 0.6, 4), [0.1, 0.2, 0.5]);
  assert.deepEqual(logTicks(0.11, 0.14, 3), [0.11, 0.12, 0.13, 0.14]);
});

test("one outlier does not flatten the curve, a mark is always in sight", () => {
  const loss = Array(1000)
    .fill(0.1)
    .map((value, i) => value + i / 10000);
  const [low, high] = lossRange({ loss: [...loss, 900], smooth: [0.15] }, [0.5], false);
  assert.ok(low < 0.11 && high > 0.5 && high < 0.6);
  assert.equal(lossRange({ loss: [NaN], smooth: [NaN] }, [], false), null);
});

test("a log axis has no room for zero", () => {
  const [low] = lossRange({ loss: [0, 0.1], smooth: [0.1] }, [0], true);
  assert.ok(low > 0);
  assert.ok(Math.abs(placed([0.01, 1], true)(0.1) - 0.5) < 1e-12);
  assert.equal(placed([10, 20], false)(15), 0.5);
});

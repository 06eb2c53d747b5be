import assert from "node:assert/strict";
import { test } from "node:test";

import { differing, labels, smoothedAlike, smoothedAt } from "../../web/js/lib/comparison.js";
import { HIGH, WIDE, corners } from "../../web/js/lib/sketch.js";
import { resuming, sameWork } from "../../web/js/lib/workflow.js";
import { history } from "./script.mjs";

const trains = (id, existing) => ({
  id,
  type: "ScionTrainLoRA",
  pos: [0, 0],
  properties: {},
  widgets_values: ["fox", existing, "refuse"],
});
const inside = (...nodes) => ({ nodes: [{ id: 9, type: "sub" }], links: [], definitions: { subgraphs: [{ nodes, links: [] }] } });

test("a run's workflow goes on with the run, wherever its node lies, and itself stays as it was kept", () => {
  for (const kept of [{ nodes: [trains(1, "new")], links: [] }, inside(trains(1, "error"))]) {
    const before = structuredClone(kept);
    const ready = resuming(kept, "fox-1");
    const [node] = ready.definitions?.subgraphs[0].nodes ?? ready.nodes;
    assert.deepEqual(node.widgets_values, ["fox", "resume", "refuse"]);
    assert.equal(node.properties.scion_run, "fox-1");
    assert.deepEqual(kept, before);
  }
});

test("which of several nodes trained it is not guessed, and what goes on already stays", () => {
  const ready = resuming({ nodes: [trains(1, "continue"), trains(2, "resume")] }, "fox-1");
  assert.deepEqual(
    ready.nodes.map((node) => [node.widgets_values[1], node.properties.scion_run]),
    [
      ["continue", undefined],
      ["resume", undefined],
    ],
  );
  assert.deepEqual(resuming({}, "fox-1"), {});
});

test("workflows do the same whatever their nodes' places; a value, a link or a muted node makes another", () => {
  const link = [1, 2, 0, 1, 0, "MODEL"];
  const one = { nodes: [trains(1, "resume"), { id: 2, type: "x" }], links: [link] };
  const moved = {
    nodes: [
      { id: 2, type: "x", pos: [5, 5] },
      { ...trains(1, "resume"), pos: [9, 9] },
    ],
    links: [link],
  };
  assert.ok(sameWork(one, moved));
  assert.ok(!sameWork(one, { ...one, nodes: [trains(1, "new"), one.nodes[1]] }));
  assert.ok(!sameWork(one, { ...one, links: [[1, 2, 1, 1, 0, "MODEL"]] }));
  assert.ok(!sameWork(one, { ...one, nodes: [one.nodes[0], { id: 2, type: "x", mode: 4 }] }));
  assert.ok(!sameWork(inside(trains(1, "resume")), inside(trains(1, "new"))));
});

test("settings differ where any run has another value, or none", () => {
  const runs = [
    { rank: 4, targets: ["a"], seed: 1 },
    { rank: 8, targets: ["a"], seed: 1, kind: "loha" },
  ];
  assert.deepEqual(differing(runs), [
    { name: "kind", values: [undefined, "loha"] },
    { name: "rank", values: [4, 8] },
  ]);
});

test("runs of one name are told apart by their ids", () => {
  const runs = ["fox", "fox", "dog"].map((name, i) => ({ name, run: `${name}-${i}` }));
  assert.deepEqual(labels(runs), ["fox-0", "fox-1", "dog"]);
});

test("runs are smoothed over the same window; where one has no loss it has no value", () => {
  const [long, short] = smoothedAlike([history("a", 1000, 1000), history("b", 50, 100)]);
  assert.equal(long.window, 20);
  assert.equal(short.window, 20);
  assert.equal(smoothedAt(short, 50), short.smooth[49]);
  assert.equal(smoothedAt(short, 51), null);
  const [none] = smoothedAlike([history("c", 0, 100)]);
  assert.equal(smoothedAt(none, 1), null);
});

test("a thinned history has a value from its first steps on", () => {
  const series = { step: [10, 20, 30], loss: [3, 2, 1], low: [3, 2, 1], high: [3, 2, 1] };
  const [thinned] = smoothedAlike([{ ...history("a", 30), series }]);
  assert.equal(smoothedAt(thinned, 1), 3);
});

test("a small curve fills its box from the first step to the last of all, gaps left out", () => {
  const points = corners(
    [
      [1, 4],
      [2, null],
      [3, 2],
    ],
    5,
  )
    .split(" ")
    .map((point) => point.split(",").map(Number));
  assert.deepEqual(points, [
    [0, 2],
    [WIDE / 2, HIGH - 2],
  ]);
  assert.equal(corners([[7, 0.5]], 0), `${WIDE}.0,${HIGH / 2}.0`);
  assert.equal(corners([], 10), "");
});

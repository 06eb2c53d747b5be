import assert from "node:assert/strict";
import { test } from "node:test";

import { differing, labels, smoothedAlike, smoothedAt } from "../../web/js/lib/comparison.js";
import { atAGlance, settingName, settingValue } from "../../web/js/lib/setting_words.js";
import { HIGH, WIDE, corners } from "../../web/js/lib/sketch.js";
import { load, when } from "../../web/js/lib/text.js";
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

const WIDGETS = /** @type {any} */ ({
  "adapter.rank": ["Config", "rank"],
  "optimizer.learning_rate": ["Config", "learning_rate"],
  "optimizer.name": ["Config", "optimizer"],
});

test("settings differ where any run has another value, in the order of the widgets; none and empty are the same", () => {
  const runs = [
    { "run.steps": 4, "adapter.rank": 4, "adapter.targets": ["a"], "dataset.trigger": "", "dataset.folders": [] },
    { "run.steps": 8, "adapter.rank": 8, "adapter.targets": ["a"], "adapter.kind": "loha", "dataset.trigger": null },
  ];
  assert.deepEqual(differing(runs, WIDGETS), [
    { name: "adapter.rank", values: [4, 8] },
    { name: "adapter.kind", values: [undefined, "loha"] },
  ]);
});

test("settings are named as their widgets, in the page's language; a card tells rank and learning rate", async () => {
  assert.equal(settingName("optimizer.name", WIDGETS), "optimizer");
  assert.equal(settingName("adapter.start_from", WIDGETS), "adapter.start_from");
  const nodeDefs = { Config: { inputs: { rank: { name: "秩" } } } };
  await load({ fetchApi: async () => ({ json: async () => ({ zh: { nodeDefs } }) }) }, "zh");
  assert.equal(settingName("adapter.rank", WIDGETS), "秩");
  await load({ fetchApi: () => Promise.reject(new Error("offline")) }, "en");
  assert.equal(settingValue("optimizer.learning_rate", 0.0012), "1.2e-3");
  assert.deepEqual(
    [["a", ""], null, false].map((value) => settingValue("x", value)),
    ["a, not set", "not set", "false"],
  );
  const settings = { "adapter.kind": "lora", "adapter.rank": 16, "optimizer.learning_rate": 0.0012 };
  assert.equal(atAGlance(settings), "rank 16 · 1.2e-3");
  assert.equal(atAGlance({ ...settings, "adapter.kind": "dora" }), "dora · rank 16 · 1.2e-3");
  assert.equal(atAGlance({}), "");
});

test("runs of one name are told apart by what differs, else by when they began, else by their ids", () => {
  const run = (name, rank, minutes, id = "1") => ({
    run: `${name}-${rank}-${id}`,
    name,
    settings: { "adapter.rank": rank, "optimizer.learning_rate": 1e-4 },
    started_at: 60 * minutes,
  });
  assert.deepEqual(labels([run("fox", 4, 0), run("fox", 8, 0), run("dog", 4, 0)], WIDGETS), [
    "fox · rank 4",
    "fox · rank 8",
    "dog",
  ]);
  const times = [run("fox", 4, 0), run("fox", 4, 5)];
  assert.deepEqual(labels(times, WIDGETS), [`fox · ${when(0)}`, `fox · ${when(300)}`]);
  assert.deepEqual(labels([run("fox", 4, 0), run("fox", 4, 0, "2")], WIDGETS), ["fox-4-1", "fox-4-2"]);
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

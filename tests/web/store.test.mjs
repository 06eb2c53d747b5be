import assert from "node:assert/strict";
import { test } from "node:test";

import { RouteError } from "../../web/js/lib/api.js";
import { RunStore } from "../../web/js/lib/store.js";

class Server extends EventTarget {
  constructor() {
    super();
    this.trains = [];
    this.histories = {};
    this.asked = [];
  }
  async active() {
    return this.trains;
  }
  async history(run) {
    this.asked.push(run);
    if (!this.histories[run]) throw new RouteError("no such run", 404);
    return this.histories[run];
  }
  async workflowOf(prompt) {
    this.asked.push(prompt);
    return `workflow of ${prompt}`;
  }
  tell(name, data) {
    this.dispatchEvent(new CustomEvent(name.startsWith("execution") ? name : `scion.${name}`, { detail: data }));
  }
}

const of = (node, prompt = "p1", run = null) => ({ node, prompt_id: prompt, run });
const steps = (first, losses) => ({
  first,
  losses,
  total: 100,
  learning_rate: 1e-4,
  epoch: 2,
  seconds_per_step: 0.5,
  seconds_left: 30,
  memory: 1 << 30,
});
const history = (run, more = {}) => ({
  run,
  status: "stopped",
  early: false,
  failure: "",
  active: false,
  step: 3,
  total: 100,
  lora: null,
  settings: {},
  series: { step: [1, 2, 3], loss: [3, 2, 1], low: [3, 2, 1], high: [3, 2, 1] },
  learning_rate: [[1, 1e-4]],
  validation: [[2, 0.5]],
  best: { step: 2, loss: 0.5 },
  checkpoints: [2],
  previews: [{ step: 2, name: "a.png", prompts: ["x"], count: 1, width: 8, height: 8 }],
  seconds_per_step: 0.5,
  ...more,
});

async function begun(prepare = () => {}) {
  const server = new Server();
  prepare(server);
  const store = new RunStore(server, server);
  const changes = [];
  store.listen((view, what) => changes.push([view.node ?? view.run, what]));
  await store.start();
  return { server, store, changes };
}

test("two nodes of one prompt do not hear each other", async () => {
  const { server, store } = await begun();
  server.tell("started", { ...of("3", "p1", "a"), step: 0, total: 100 });
  server.tell("started", { ...of("12:5", "p1", "b"), step: 0, total: 100 });
  server.tell("step", { ...of("3", "p1", "a"), ...steps(1, [3, 2]) });
  server.tell("step", { ...of("12:5", "p1", "b"), ...steps(1, [9]) });
  assert.deepEqual(
    store.live().map((view) => [view.node, view.run, view.step, view.series.smoothed]),
    [
      ["3", "a", 2, store.open("a").series.smoothed],
      ["12:5", "b", 1, 9],
    ],
  );
});

test("what happens before the run has an id is the same view's", async () => {
  const { server, store } = await begun();
  server.tell("working", { ...of("3"), what: "scanning", done: 12, total: 80 });
  const [view] = store.live();
  assert.deepEqual([view.status, view.phase.what, view.phase.done], ["waiting", "scanning", 12]);
  server.tell("started", { ...of("3", "p1", "a"), step: 0, total: 100 });
  assert.equal(store.open("a"), view);
  assert.equal(view.phase, null);
});

test("a late join has the history and goes on with the events", async () => {
  const { server, store } = await begun((server) => {
    server.trains = [{ ...of("3", "p1", "a"), phase: null, step: 3, total: 100 }];
    server.histories.a = history("a", { status: "unfinished", active: true });
  });
  server.tell("step", { ...of("3", "p1", "a"), ...steps(4, [0.5]) });
  const view = store.open("a");
  assert.deepEqual([view.live, view.status, view.step, view.series.length], [true, "training", 4, 4]);
  assert.deepEqual(
    view.previews.map((one) => one.name),
    ["a.png"],
  );
});

test("a run known by its id alone is shown from its history; one that is gone says so", async () => {
  const { server, store, changes } = await begun((server) => (server.histories.a = history("a")));
  const [known, gone] = [store.open("a"), store.open("z")];
  await new Promise(setImmediate);
  assert.deepEqual([known.status, known.step, known.series.length, known.best.step], ["stopped", 3, 3, 2]);
  assert.equal(gone.status, "gone");
  assert.deepEqual(changes, [
    ["a", "history"],
    ["z", "history"],
  ]);
  assert.equal(store.open("a"), known);
  assert.deepEqual(server.asked, ["a", "z"]);
});

test("a run that goes on takes its past from the history, and steps taken anew replace the old", async () => {
  const { server, store } = await begun((server) => (server.histories.a = history("a")));
  server.tell("started", { ...of("3", "p2", "a"), step: 2, total: 100 });
  await new Promise(setImmediate);
  server.tell("validation", { ...of("3", "p2", "a"), step: 3, loss: 0.7, best: { step: 2, loss: 0.5 } });
  server.tell("step", { ...of("3", "p2", "a"), ...steps(3, [7]) });
  const view = store.open("a");
  assert.deepEqual([...view.series.loss.subarray(0, view.series.length)], [3, 2, 7]);
  assert.deepEqual(view.validation, [[2, 0.5]]);
});

test("a lost connection is made good: what ended meanwhile is no longer live", async () => {
  const { server, store } = await begun();
  server.tell("started", { ...of("3", "p1", "a"), step: 0, total: 3 });
  server.histories.a = history("a", { status: "finished", lora: "a.safetensors" });
  await store.join();
  const view = store.open("a");
  assert.deepEqual([view.live, view.status, view.lora], [false, "finished", "a.safetensors"]);
});

test("a prompt that fails before it trains leaves no node working", async () => {
  const { server, store } = await begun();
  server.tell("working", { ...of("3"), what: "loading", done: 0, total: 0 });
  const [view] = store.live();
  server.tell("execution_error", { prompt_id: "another", exception_message: "x" });
  assert.equal(view.live, true);
  server.tell("execution_error", { prompt_id: "p1", exception_message: "no VAE" });
  assert.deepEqual([view.live, view.status, view.message], [false, "failed", "no VAE"]);
});

test("what a run failed of is known from its history, too", async () => {
  const failure = "step 3: not finite\nBegin anew";
  const { store } = await begun((server) => (server.histories.a = history("a", { failure })));
  const view = store.open("a");
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual([view.status, view.message], ["failed", failure]);
});

test("the workflow of a prompt is asked once", async () => {
  const { server, store } = await begun();
  assert.equal(await store.workflowOf("p1"), "workflow of p1");
  await store.workflowOf("p1");
  assert.deepEqual(server.asked, ["p1"]);
});

test("a stopped store hears nothing, an ended listener is gone", async () => {
  const { server, store } = await begun();
  const end = store.listen(() => assert.fail("heard"));
  end();
  store.stop();
  server.tell("working", { ...of("3"), what: "loading", done: 0, total: 0 });
  assert.equal(store.live().length, 0);
});

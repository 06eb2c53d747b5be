/** A training as the server would tell of it. */

/** @param {string} node @param {string} run @param {string} [prompt] */
export const of = (node, run, prompt = "p1") => ({ node, prompt_id: prompt, run });

/** A falling, noisy loss, the same each time. */
export function lossAt(step, total) {
  const noise = Math.abs(Math.sin(step * 12.9898) * 43758.5453) % 1;
  return 0.09 + 0.12 * Math.exp((-4 * step) / total) + 0.09 * (noise - 0.4);
}

export const losses = (first, count, total) => Array.from({ length: count }, (_, i) => lossAt(first + i, total));

export function steps(first, count, total) {
  const last = first + count - 1;
  return {
    first,
    losses: losses(first, count, total),
    total,
    learning_rate: 1e-4 * (1 - last / total),
    epoch: 1 + Math.floor(last / 40),
    seconds_per_step: 0.42,
    seconds_left: 0.42 * (total - last),
    memory: 7.3 * 2 ** 30,
  };
}

const HOSTILE = '<img src=x onerror=window.__broken=1> a photo of sks dog, <b>bold</b> & "quotes"';
export const prompts = ["a photo of a red fox in the snow", HOSTILE];

export const preview = (step) => ({ step, name: `step-${step}.png`, prompts, count: 2, width: 384, height: 192 });

/** Events of a run from its beginning to `upto`. */
export function training(who, upto, total = 1200) {
  const events = [
    ["started", { ...who, step: 0, total, modules: 192, parameters: 3_200_000, precision: "bf16", device: "cuda" }],
  ];
  let best = null;
  for (let first = 1; first <= upto; first += 50) {
    events.push(["step", { ...who, ...steps(first, Math.min(50, upto - first + 1), total) }]);
    const step = first + 49;
    if (step <= upto && step % 100 === 0) {
      const loss = 0.1 + 0.1 * Math.exp((-5 * step) / total) + (step > 600 ? (step - 600) / 12000 : 0);
      if (!best || loss < best.loss) best = { step, loss };
      events.push(["validation", { ...who, step, loss, best }]);
    }
    if (step <= upto && step % 200 === 0) {
      events.push(["preview", { ...who, ...preview(step) }]);
      events.push(["checkpoint", { ...who, step, name: `step-${step}.safetensors` }]);
    }
  }
  return events;
}

/** A run's history as the server gives it. */
export function history(run, upto, total = 1200, more = {}) {
  const step = Array.from({ length: upto }, (_, i) => i + 1);
  const loss = losses(1, upto, total);
  return {
    run,
    status: "stopped",
    early: false,
    by_hand: false,
    failure: "",
    active: false,
    step: upto,
    total,
    lora: null,
    loss: 0.1082,
    settings: {},
    dataset: ["fox"],
    series: { step, loss, low: loss, high: loss },
    learning_rate: [[1, 1e-4]],
    validation: [
      [100, 0.16],
      [200, 0.13],
    ],
    best: { step: 200, loss: 0.13 },
    checkpoints: [200],
    previews: [preview(200)],
    seconds_per_step: 0.42,
    ...more,
  };
}

/** A run in the list of all. */
export const listed = (run, more = {}) => ({
  run,
  name: run.replace(/-[0-9a-f]{12}$/, ""),
  status: "finished",
  early: false,
  failure: "",
  active: false,
  step: 1200,
  total: 1200,
  started_at: 1_795_000_000,
  finished_at: 1_795_003_600,
  loss: 0.1082,
  validation: { step: 600, loss: 0.1231 },
  lora: "fox.safetensors",
  settings: { "adapter.kind": "lora", "adapter.rank": 16, "optimizer.learning_rate": 1.2e-3 },
  bytes: 3 * 2 ** 20,
  preview: "step-600.png",
  curve: Array.from({ length: 60 }, (_, i) => [20 * (i + 1), lossAt(20 * (i + 1), 1200)]),
  workflow: true,
  ...more,
});

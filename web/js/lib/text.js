/** The words of the panel, in the language of the host's settings. English stands here; others in locales/. */

export const ENGLISH = {
  none: "Nothing trained here yet. Queue the workflow to begin.",
  waiting: "Waiting for the first step",
  loading: "Loading the model",
  scanning: "Scanning pictures",
  encoding: "Encoding pictures and captions",
  saving: "Saving",
  previewing: "Drawing a preview",
  validating: "Validating",
  training: "Training",
  finished: "Finished",
  finishedEarly: "Finished early",
  stopped: "Stopped",
  unfinished: "Unfinished",
  queueAgain: "Queue the workflow again to go on.",
  failed: "Failed",
  gone: "Run not found",
  goneHint: "Its folder was deleted, or is on another computer. Queue the workflow to train anew.",
  noLoss: "No step was trained",
  of: "{done} of {total}",
  epoch: "Epoch",
  speed: "Speed",
  left: "Time left",
  learningRate: "Learning rate",
  memory: "Memory",
  loss: "Loss",
  lossRaw: "Loss",
  lossSmooth: "Smoothed",
  validation: "Validation",
  best: "Best validation",
  bestAt: "{loss}, step {step}",
  atStep: "step {step}",
  secondsPerStep: "{value} s/step",
  stepsPerSecond: "{value} steps/s",
  log: "log",
  logTip: "Logarithmic scale of the loss",
  chart: "Loss by step. {said}",
  chartEmpty: "The loss appears with the first step",
  finish: "Stop and use",
  finishTip: "Ends the run now; the graph goes on with the LoRA as it is",
  checkpoint: "Save checkpoint",
  checkpointTip: "Writes the LoRA of this step into the run's folder",
  sample: "Sample now",
  sampleTip: "Draws the preview's prompts with the LoRA as it is",
  goOn: "Continue",
  goOnTip: "The run ended early: trains its remaining steps when the workflow is queued again",
  nothingTrains: "Nothing trains in this node now",
  notYet: "The run has not begun its first step",
  asked: "Asked for: {what}",
  previews: "Previews",
  previewOf: "Preview of step {step}",
  openPreview: "Preview of step {step}: open large",
  compare: "Compare with",
  compareNone: "nothing",
  slider: "Share of the picture that shows step {step}",
  prompt: "Prompt {number}",
  older: "Previous step",
  newer: "Next step",
  close: "Close",
  run: "Run",
  saidFinished: "Trained {step} steps. The graph goes on with {lora}.",
  saidEarly: "Ended at step {step} of {total}. The graph goes on with {lora}.",
  saidStopped: "Kept at step {step} of {total}. Queue the workflow again to go on.",
  saidFailed: "{message}",
  saidGoOn: "Queue the workflow again: it trains from step {step} to {total}.",
};

/** @type {Record<string, string>} */
let words = { ...ENGLISH };
let language = "en";

/**
 * @param {string} key one of ENGLISH; another is shown as it is
 * @param {Record<string, string|number>} [values] for the {placeholders}
 */
export function t(key, values = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all));
}

/**
 * @param {{fetchApi: (path: string) => Promise<Response>}} host
 * @param {string} locale "zh", "zh-TW", …; one that we have no words for stays English
 */
export async function load(host, locale) {
  language = locale || "en";
  try {
    const all = await (await host.fetchApi("/i18n")).json();
    words = { ...ENGLISH, ...(all[language] ?? all[language.split("-")[0]])?.scion };
  } catch {
    words = { ...ENGLISH };
  }
}

/** @param {number} value whole */
export function count(value) {
  return value.toLocaleString(language);
}

/** @param {number|null|undefined} value a loss, four digits that count */
export function loss(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(2);
  return value.toPrecision(4);
}

/** @param {number} value a learning rate */
export function rate(value) {
  return value === 0 ? "0" : value.toExponential(2).replace(/\.?0+e/, "e");
}

/** @param {number} bytes */
export function bytes(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

/** @param {number} seconds as 1:02:03 or 2:03 */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** @param {number} secondsPerStep */
export function speed(secondsPerStep) {
  if (!(secondsPerStep > 0)) return "–";
  if (secondsPerStep >= 1) return t("secondsPerStep", { value: secondsPerStep.toFixed(2) });
  return t("stepsPerSecond", { value: (1 / secondsPerStep).toFixed(1) });
}

/** Presets on LoRA Train Config, and greyed widgets on it and on the dataset node: what does nothing says why. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { Routes } from "./lib/api.js";
import { grey, held, tooltipsChanged } from "./lib/grey.js";
import { differing, equalTo } from "./lib/presets.js";
import { KEEP } from "./lib/settings.js";
import { loaded, t } from "./lib/text.js";

const CONFIG = "ScionLoRATrainConfig";
const TRAIN = "ScionTrainLoRA";
const WIDGET = "scion_preset";
/** Saved with the workflow: what the settings were begun with. */
const CHOSEN = "scion_preset";

/** @type {import("./types").Widgets} */
let told = { presets: {}, idle: {}, settings: {} };
/** Those that are in a graph. */
const nodes = new Set();
let due = false;

/** All of them, because a dataset's setting counts for the config node, too; once for all changes of a moment. */
function refresh() {
  if (due) return;
  due = true;
  queueMicrotask(() => {
    due = false;
    for (const node of nodes) {
      if (told.idle[node.comfyClass]) grey(node, told.idle[node.comfyClass]);
      if (node.comfyClass === CONFIG) say(node);
    }
  });
}

// ---- presets

function named(preset) {
  const [subject, pace] = preset.split("/");
  return t("preset.name", { subject: t(`preset.${subject}`), pace: t(`preset.${pace}`) });
}

/** What the node's widgets hold, of those that presets fill and no wire does. */
function heldBy(node) {
  const [any] = Object.values(told.presets);
  const values = Object.keys(any ?? {}).map((name) => [name, held(node, name)]);
  return Object.fromEntries(values.filter(([, value]) => value !== undefined));
}

const shown = (value) => (value === "" ? "–" : value);

/** The choice shows what the settings equal, and its tooltip what differs from the preset that was chosen last. */
function say(node) {
  const choice = node.widgets?.find((widget) => widget.name === WIDGET);
  if (!choice) return;
  const values = heldBy(node);
  const equal = equalTo(told.presets, values);
  const last = told.presets[node.properties?.[CHOSEN]] ? node.properties[CHOSEN] : null;
  const said = equal ? named(equal) : last ? t("preset.changed", { preset: named(last) }) : t("preset.own");
  const others = Object.keys(told.presets).map(named);
  choice.options.values = others.includes(said) ? others : [said, ...others];
  if (choice.value !== said) choice.value = said;
  const lines = equal || !last ? [] : differing(told.presets[last], values);
  const label = (name) => node.widgets.find((widget) => widget.name === name)?.label ?? name;
  const differs = lines.map((name) =>
    t("preset.differs", { widget: label(name), now: shown(values[name]), usual: shown(told.presets[last][name]) }),
  );
  const tooltip = [t("preset.tip"), ...(equal ? [t("preset.equal")] : differs)].join("\n");
  if (choice.tooltip === tooltip) return;
  choice.tooltip = tooltip;
  tooltipsChanged(node);
}

/** Fills the widgets, as one step that can be undone. */
function fill(node, preset) {
  app.canvas.emitBeforeChange();
  node.properties[CHOSEN] = preset;
  for (const [name, value] of Object.entries(told.presets[preset])) {
    const widget = node.widgets.find((one) => one.name === name);
    if (held(node, name) === undefined || widget.value === value) continue;
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
  }
  node.setDirtyCanvas(true, true);
  app.canvas.emitAfterChange();
  refresh();
}

/** Values are saved by place, with a hole for a widget that is not saved; they are read without one. */
function leavesNoHole(node) {
  const { onSerialize } = node;
  node.onSerialize = function (saved, ...given) {
    if (saved.widgets_values) {
      saved.widgets_values = saved.widgets_values.filter((_, place) => this.widgets[place]?.serialize !== false);
    }
    onSerialize?.call(this, saved, ...given);
  };
}

/** The box has no label of its own. */
function sayPrompts(node) {
  const box = node.widgets.find((widget) => widget.name === "preview_prompts");
  if (!box) return;
  box.options.placeholder = t("preset.prompts");
  if (box.element) box.element.placeholder = t("preset.prompts");
}

function addChoice(node) {
  const choose = (said) => {
    const preset = Object.keys(told.presets).find((name) => named(name) === said);
    if (preset) fill(node, preset);
    else refresh();
  };
  const choice = node.addWidget("combo", WIDGET, "", choose, { values: [""], serialize: false });
  choice.serialize = false;
  choice.label = t("preset");
  node.widgets.splice(node.widgets.indexOf(choice), 1);
  node.widgets.unshift(choice);
  leavesNoHole(node);
  const [, height] = node.computeSize();
  node.setSize([node.size[0], height]);
}

// ---- nodes

/** Calls `also` after a method of the node's own. */
function after(node, method, also) {
  const before = node[method];
  node[method] = function (...given) {
    const answer = before?.apply(this, given);
    also();
    return answer;
  };
}

function watch(node) {
  for (const widget of node.widgets ?? []) after(widget, "callback", refresh);
  after(node, "onConfigure", refresh);
  after(node, "onConnectionsChange", refresh);
  after(node, "onAdded", () => {
    nodes.add(node);
    refresh();
  });
  after(node, "onRemoved", () => nodes.delete(node));
}

app.registerExtension({
  name: "scion.config",
  async setup() {
    await loaded(api, app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
    try {
      told = await new Routes(api).widgets();
    } catch (error) {
      console.warn("Scion: no presets, and nothing is greyed:", error);
    }
  },
  nodeCreated(node) {
    if (node.comfyClass === TRAIN) after(node, "onConnectionsChange", refresh);
    if (node.comfyClass === CONFIG) sayPrompts(node);
    if (!told.idle[node.comfyClass]) return;
    if (node.comfyClass === CONFIG) {
      // A workflow that is loaded puts its own value over it.
      const keep = app.extensionManager?.setting?.get(KEEP);
      const widget = node.widgets.find((one) => one.name === "keep_checkpoints");
      if (Number.isInteger(keep) && keep >= 1 && widget) widget.value = keep;
      addChoice(node);
    }
    watch(node);
  },
});

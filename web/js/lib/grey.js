/** Greys the widgets of a node that do nothing, with the reason in their tooltips. */

import { idleWidgets } from "./idle.js";
import { ofInput, reason, t } from "./text.js";

const TRAINS = "ScionTrainLoRA";

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);
const inputOf = (node, name) => node.inputs?.find((input) => input.name === name);

/** A widget's value; undefined where it comes over a wire. */
export function held(node, name) {
  return inputOf(node, name)?.link != null ? undefined : widgetOf(node, name)?.value;
}

function origin(node, input) {
  const link = node.graph?.getLink?.(inputOf(node, input)?.link);
  return link ? node.graph.getNodeById(link.origin_id) : null;
}

/** The nodes of a type that train with what a config node says; null where one is not seen (it lies in a subgraph). */
function beside(node, type) {
  const links = (node.outputs?.[0]?.links ?? []).map((id) => node.graph?.getLink?.(id));
  const trainings = links.map((link) => link && node.graph.getNodeById(link.target_id));
  const found = trainings.map((training) => (training?.comfyClass === TRAINS ? origin(training, "dataset") : null));
  return found.length && found.every((one) => one?.comfyClass === type) ? found : null;
}

/** What a condition asks for; undefined where it is not known, such as where several nodes differ. */
function asked(node, condition) {
  if (condition.input) return inputOf(node, condition.input)?.link ?? null;
  if (!condition.node) return held(node, condition.widget);
  const values = new Set(beside(node, condition.node)?.map((other) => held(other, condition.widget)));
  return values.size === 1 ? [...values][0] : undefined;
}

/** Nodes 2.0 reads tooltips when the list of widgets changes, and at no other time. */
export function tooltipsChanged(node) {
  if (globalThis.LiteGraph?.vueNodesMode && node.graph) node.widgets.push(node.widgets.pop());
}

/** What each widget says without us. */
const own = new WeakMap();

function tooltipOf(node, widget, verdict) {
  if (!own.has(widget)) own.set(widget, widget.tooltip);
  const before = own.get(widget);
  if (!verdict) return before;
  const input = node.constructor.nodeData?.inputs?.[widget.name];
  const usual = before ?? ofInput(node.comfyClass, widget.name, "tooltip") ?? input?.tooltip ?? "";
  const reasons = verdict.rules.map((rule) => (verdict.grey ? reason(rule) : t("idle.refused", { why: reason(rule) })));
  return [...new Set(reasons), usual].join("\n\n").trim();
}

/**
 * @param {any} node
 * @param {import("../types").IdleRule[]} rules of its type
 */
export function grey(node, rules) {
  const verdicts = idleWidgets(rules, (condition) => asked(node, condition));
  let told = false;
  for (const name of new Set(rules.map((rule) => rule.widget))) {
    const widget = widgetOf(node, name);
    if (!widget) continue;
    const verdict = verdicts.get(name);
    const disabled = Boolean(verdict?.grey);
    if (Boolean(widget.disabled) !== disabled) widget.disabled = disabled;
    const tooltip = tooltipOf(node, widget, verdict);
    if (widget.tooltip !== tooltip) {
      widget.tooltip = tooltip;
      told = true;
    }
  }
  if (told) tooltipsChanged(node);
  node.setDirtyCanvas?.(true, false);
}

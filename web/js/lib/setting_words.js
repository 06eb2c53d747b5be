/** A run's settings in words: named as the widgets are that hold them, and their values as a person reads them. */

import { ofInput, rate, t } from "./text.js";

/** Written as learning rates are. */
const RATES = ["optimizer.learning_rate"];

/**
 * @param {string} setting its dotted name
 * @param {import("../types").SettingNames} widgets
 */
export function settingName(setting, widgets) {
  if (!widgets[setting]) return setting;
  const [node, widget] = widgets[setting];
  return ofInput(node, widget, "name") ?? widget;
}

/**
 * @param {string} setting its dotted name
 * @param {unknown} value
 */
export function settingValue(setting, value) {
  return RATES.includes(setting) && typeof value === "number" ? rate(value) : written(value);
}

/** @param {unknown} value an empty one is the same as none: an older Scion did not have the setting */
export function isUnset(value) {
  return value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length);
}

/** @returns {string} */
function written(value) {
  if (isUnset(value)) return t("runsUnset");
  if (Array.isArray(value)) return value.map(written).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/**
 * What a run is told from others by at a glance.
 * @param {Record<string, unknown>} settings the main ones
 */
export function atAGlance(settings) {
  const { "adapter.kind": kind, "adapter.rank": rank, "optimizer.learning_rate": learningRate } = settings;
  const parts = [
    kind !== "lora" && kind,
    !isUnset(rank) && t("runsRank", { rank: String(rank) }),
    typeof learningRate === "number" && rate(learningRate),
  ];
  return parts.filter(Boolean).join(" · ");
}

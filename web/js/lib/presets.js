/** Which preset a node's widgets equal, and what differs from one. */

/** @typedef {Record<string, unknown>} Values by widget */

function same(a, b) {
  if (typeof a === "number" && typeof b === "number") return Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b));
  return String(a).trim() === String(b).trim();
}

/**
 * @param {Values} preset
 * @param {Values} values of the node; what is not there is not known, and not compared
 * @returns {string[]} widgets
 */
export function differing(preset, values) {
  return Object.keys(preset).filter((widget) => widget in values && !same(preset[widget], values[widget]));
}

/**
 * @param {Record<string, Values>} presets
 * @param {Values} values
 * @returns {string|null} the preset's name
 */
export function equalTo(presets, values) {
  return Object.keys(presets).find((name) => differing(presets[name], values).length === 0) ?? null;
}

/** The pack's words on the page, in the language of the host's settings. English stands in words/, others in locales/. */

import { CONFIG } from "./words/config.js";
import { DATASET } from "./words/dataset.js";
import { PANEL } from "./words/panel.js";
import { RUNS } from "./words/runs.js";

export const ENGLISH = { ...PANEL, ...RUNS, ...CONFIG, ...DATASET };

/** @type {Record<string, string>} */
let words = { ...ENGLISH };
let language = "en";
/** @type {any} what else there is in the language: names and tooltips of nodes, reasons of the server's rules */
let others = {};

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
    others = all[language] ?? all[language.split("-")[0]] ?? {};
    words = { ...ENGLISH, ...others.scion };
  } catch {
    others = {};
    words = { ...ENGLISH };
  }
}

/** @type {Promise<void>|null} */
let loading = null;

/** `load` for the whole page, which each part of it waits for. */
export function loaded(host, locale) {
  loading ??= load(host, locale);
  return loading;
}

/**
 * Why a widget does nothing.
 * @param {import("../types").IdleRule} rule
 */
export function reason(rule) {
  return others.scionIdle?.[rule.id] ?? rule.why;
}

/**
 * What is said of a node's input; null where the language says nothing of it.
 * @param {string} node its type
 * @param {string} input
 * @param {"name"|"tooltip"} what
 * @returns {string|null}
 */
export function ofInput(node, input, what) {
  return others.nodeDefs?.[node]?.inputs?.[input]?.[what] ?? null;
}

/** @param {number} value whole */
export function count(value) {
  return value.toLocaleString(language);
}

/**
 * @param {string} key of the words for several; those for one have `.one` behind it
 * @param {number} value how many there are
 * @param {Record<string, string|number>} [values] for the other {placeholders}
 */
export function counted(key, value, values = {}) {
  return t(value === 1 && `${key}.one` in ENGLISH ? `${key}.one` : key, { ...values, count: count(value) });
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

/** @param {number} seconds since 1970 */
export function when(seconds) {
  return new Date(1000 * seconds).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

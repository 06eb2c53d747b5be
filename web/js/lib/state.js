/** A run's state in words, with the sign that stands before them. */

import { t } from "./text.js";

/** Signs before the words, which say the same. */
const SIGNS = { waiting: "…", training: "▶", finished: "✓", stopped: "■", unfinished: "■", failed: "✕", gone: "✕" };

/**
 * @param {{status: string, early: boolean, live: boolean, phase: import("../types").Phase|null}} view
 * @returns {string} key of the word
 */
export function stateWord({ status, early, live, phase }) {
  if (phase && live) return phase.what;
  return early && status === "finished" ? "finishedEarly" : status;
}

/** @param {{status: string, early: boolean, live: boolean, phase: import("../types").Phase|null}} view */
export function stateText(view) {
  return `${SIGNS[view.status] ?? ""} ${t(stateWord(view))}`;
}

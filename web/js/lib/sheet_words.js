/** What a contact sheet says of a dataset as a whole, and of one picture. */

import { count, counted, t } from "./text.js";

/** The server's words for a picture without a caption, which the page says in its own language. */
const UNCAPTIONED = "has no caption.";

/** @param {[number, number]} bucket */
const sizeOf = ([width, height]) => `${width}×${height}`;

/**
 * @param {import("../types").ItemsPage} page
 * @param {boolean} needed whether training refuses pictures without a caption
 * @returns {{text: string, tip: string}}
 */
export function summary(page, needed) {
  const problems = page.unusable + page.problems.length;
  const parts = [counted("sheet.pictures", page.count)];
  if (problems) parts.push(`⚠ ${counted("sheet.problems", problems)}`);
  if (page.uncaptioned) parts.push(`${needed ? "⚠ " : ""}${counted("sheet.uncaptioned", page.uncaptioned)}`);
  if (page.buckets.length) parts.push(counted("sheet.buckets", page.buckets.length));
  if (page.checked < page.count) parts.push(t("sheet.checked", { count: count(page.checked) }));
  const buckets = page.buckets.map(([bucket, pictures]) =>
    t("sheet.bucketOf", { bucket: sizeOf(bucket), count: count(pictures) }),
  );
  return { text: parts.join(" · "), tip: buckets.length ? buckets.join("\n") : page.count ? t("sheet.byBase") : "" };
}

/**
 * @param {import("../types").Item} item
 * @returns {string} what is wrong with a picture; empty if nothing is
 */
export function problemOf(item) {
  return item.problem === UNCAPTIONED ? t("sheet.noCaption") : (item.problem ?? "");
}

/**
 * @param {import("../types").Item|undefined} item
 * @returns {string} what is wrong with it, in its own cell: by its file's name, where the words speak of the file
 */
export function warning(item) {
  const problem = item && problemOf(item);
  if (!problem) return "";
  return item.problem === UNCAPTIONED ? `⚠ ${problem}` : `⚠ ${item.key.split("/").at(-1)} ${problem}`;
}

/** @param {import("../types").Item} item */
export function bucketOf(item) {
  return item.bucket ? sizeOf(item.bucket) : "";
}

/** @param {import("../types").Item} item */
export function pixelsOf(item) {
  return item.width && item.height ? sizeOf([item.width, item.height]) : "";
}

/**
 * @param {import("../types").Item} item
 * @returns {{across: number, up: number}|null} how much of its width and height training keeps, 0 to 1: a picture is made
 *   to fill its bucket, and what stands over is cut off; null where the bucket is not known
 */
export function keptOf({ width, height, bucket }) {
  if (!bucket || !width || !height) return null;
  const scale = Math.max(bucket[0] / width, bucket[1] / height);
  return { across: bucket[0] / (width * scale), up: bucket[1] / (height * scale) };
}

/**
 * @param {import("../types").Item} item
 * @param {string} caption that was written for it
 * @returns {import("../types").Item} as the server now has it
 */
export function captioned(item, caption) {
  const text = caption.split(/\s+/).filter(Boolean).join(" ");
  const damaged = item.width === null && item.problem !== UNCAPTIONED;
  return { ...item, caption: text, problem: damaged ? item.problem : text ? null : UNCAPTIONED };
}

/** @param {string} text @returns {number} of words, also in languages that put no spaces between them */
export function wordsIn(text) {
  let words = 0;
  for (const { isWordLike } of new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)) if (isWordLike) words++;
  return words;
}

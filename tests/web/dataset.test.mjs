import assert from "node:assert/strict";
import { test } from "node:test";

import { PAGE, Pages } from "../../web/js/lib/pages.js";
import { bucketOf, captioned, keptOf, problemOf, summary, warning, wordsIn } from "../../web/js/lib/sheet_words.js";
import { Thumbnails } from "../../web/js/lib/thumbnails.js";
import { bytesOf, filesOf, isDatasetName, portions, proposed, send, sorted } from "../../web/js/lib/upload.js";
import { CELL, columnsIn, moved, placeOf, windowOf } from "../../web/js/lib/window.js";

const ROW = CELL.height + CELL.gap;
const later = () => new Promise((resolve) => setTimeout(resolve));
const file = (name, size = 1) => ({ name, size });
const entry = (one) => ({ name: one.name, isFile: true, isDirectory: false, file: (resolve) => resolve(one) });
const folder = (name, ...inner) => {
  const readings = [inner.slice(0, 2), inner.slice(2), []];
  return { name, isDirectory: true, createReader: () => ({ readEntries: (resolve) => resolve(readings.shift()) }) };
};

test("of ten thousand cells those near the view are wanted", () => {
  const seen = { top: 100 * ROW, height: 2 * ROW, width: 3 * CELL.width + 2 * CELL.gap, count: 10_000 };
  const { columns, whole, first, last } = windowOf(seen);
  assert.deepEqual([columns, whole, first, last], [3, 3334 * ROW - CELL.gap, 98 * 3, 104 * 3]);
  assert.deepEqual([windowOf({ ...seen, top: 0 }).first, windowOf({ ...seen, top: 1e9 }).last], [0, 10_000]);
  assert.equal(columnsIn(10), 1);
  assert.deepEqual(placeOf(4, 3, seen.width), { left: CELL.width + CELL.gap, top: ROW, width: CELL.width });
});

test("keys move through the grid and stay in it", () => {
  const to = (key, index) => moved(key, index, 3, 2, 8);
  assert.deepEqual([to("ArrowRight", 0), to("ArrowLeft", 0), to("ArrowDown", 1), to("ArrowUp", 1)], [1, 0, 4, 1]);
  assert.deepEqual([to("ArrowDown", 5), to("ArrowDown", 7)], [7, 7]);
  assert.deepEqual([to("PageDown", 1), to("PageDown", 4), to("PageUp", 4), to("Home", 5), to("End", 0)], [7, 7, 0, 0, 7]);
  assert.equal(to("a", 0), null);
});

test("pages are loaded when they are looked at, two at a time, and an old answer is not taken for a new one", async () => {
  const waiting = [];
  const heard = [];
  const ask = (offset, limit) => new Promise((resolve, reject) => waiting.push({ offset, limit, resolve, reject }));
  const pages = new Pages(ask, (page, error) => heard.push(error?.message ?? page.items[0]));
  const answer = async (index, name, matching = 300) => {
    waiting[index].resolve({ matching, items: Array.from({ length: PAGE }, (_, i) => `${name}${waiting[index].offset + i}`) });
    await later();
  };
  pages.need(50, 200);
  assert.deepEqual(
    waiting.map(({ offset, limit }) => [offset, limit]),
    [
      [0, PAGE],
      [60, PAGE],
    ],
  );
  assert.equal(pages.waits, true);
  await answer(1, "old");
  assert.deepEqual([pages.item(61), pages.item(1), pages.matching, pages.waits], ["old61", null, 300, false]);
  pages.need(180, 200);
  assert.equal(waiting[2].offset, 180);
  pages.renew();
  assert.equal(pages.item(61), "old61");
  await answer(0, "late");
  assert.equal(pages.item(0), null);
  pages.need(61, 62);
  await answer(3, "new");
  assert.equal(pages.item(61), "new61");
  pages.need(0, 1);
  waiting[4].reject(new Error("gone"));
  await later();
  pages.need(0, 1);
  assert.deepEqual([heard, waiting.length], [["old60", "new60", "gone"], 5]);
  pages.clear();
  assert.deepEqual([pages.item(61), pages.matching], [null, 0]);
});

test("three pictures are loaded at a time, the last wanted first, and none that is no longer seen", () => {
  const set = [];
  const image = () => {
    const made = Object.assign(new EventTarget(), { removeAttribute() {} });
    return Object.defineProperty(made, "src", { set: (url) => set.push(url) });
  };
  const images = Array.from({ length: 6 }, image);
  const thumbnails = new Thumbnails();
  for (const [i, one] of images.entries()) thumbnails.want(one, `u${i}`);
  assert.deepEqual(set, ["u0", "u1", "u2"]);
  thumbnails.forget(images[5]);
  images[0].dispatchEvent(new Event("load"));
  images[1].dispatchEvent(new Event("error"));
  thumbnails.forget(images[2]);
  assert.deepEqual(set, ["u0", "u1", "u2", "u4", "u3"]);
});

test("a sheet says what is in a dataset", () => {
  const page = { count: 12, checked: 12, unusable: 1, uncaptioned: 2, problems: ["x"], buckets: [[[512, 640], 9]] };
  assert.equal(summary(page, true).text, "12 pictures · ⚠ 2 problems · ⚠ 2 without caption · 1 bucket");
  assert.equal(summary({ ...page, unusable: 0, problems: [], count: 1 }, false).text, "1 picture · 2 without caption · 1 bucket");
  assert.match(summary({ ...page, count: 5000, buckets: [] }, true).text, /^5,000 pictures .* 12 checked$/);
  assert.equal(summary(page, true).tip, "512×640: 9");
  const item = { key: "a.png", caption: "", width: 64, height: 64, bucket: [512, 640], problem: "has no caption." };
  assert.deepEqual([problemOf(item), bucketOf(item), warning(item)], ["no caption", "512×640", "⚠ no caption"]);
  assert.equal(warning({ ...item, key: "in/a.png", problem: "is damaged." }), "⚠ a.png is damaged.");
  assert.deepEqual([keptOf(item), keptOf({ ...item, bucket: null })], [{ across: 0.8, up: 1 }, null]);
  assert.deepEqual(captioned(item, " a\n fox "), { ...item, caption: "a fox", problem: null });
  assert.equal(captioned({ ...item, width: null, problem: "is damaged." }, "x").problem, "is damaged.");
  assert.deepEqual([wordsIn("a red fox, lying"), wordsIn("")], [4, 0]);
  assert.ok(wordsIn("一只红色的狐狸") > 1);
});

test("files come out of dropped folders by their names alone; what is no picture or caption is left", async () => {
  const drop = {
    files: [],
    entries: [
      entry(file("0.png")),
      folder("10_fox", entry(file("a.PNG")), entry(file(".x.png")), folder("in", entry(file("0.png")))),
    ],
  };
  const found = await filesOf(drop);
  assert.equal(found.folder, "10_fox");
  const { taken, left, twice } = sorted([...found.files, file("notes.md"), file("a.txt")]);
  assert.deepEqual([taken.map(({ name }) => name), left, twice], [["0.png", "a.PNG", "a.txt"], ["notes.md"], ["0.png"]]);
  const mixed = sorted(["b.txt", "a.txt", "b.png", "a.png"].map((name) => file(name))).taken;
  assert.deepEqual(
    mixed.map(({ name }) => name),
    ["a.png", "a.txt", "b.png", "b.txt"],
  );
});

test("names are those that the server takes", () => {
  for (const good of ["fox", "people/alice", "10_dog", "狐狸", "a b"]) assert.ok(isDatasetName(good), good);
  for (const bad of ["", "/x", "a/b/c", "..", "a/..", ".x", "a\\b", "c:", " a", `${"x".repeat(121)}`]) {
    assert.ok(!isDatasetName(bad), bad);
  }
  assert.deepEqual([proposed("fox", ["fox"]), proposed("", ["dataset"]), proposed("..a/b:", [])], ["fox", "dataset-2", "a b"]);
});

test("files are sent in portions, and what was written stays when a later one fails", async () => {
  const MiB = 2 ** 20;
  const files = [
    ...Array.from({ length: 51 }, (_, i) => file(`${i}.png`, 1)),
    file("big.png", 60 * MiB),
    file("more.png", 5 * MiB),
  ];
  assert.deepEqual(
    portions(files).map((portion) => portion.length),
    [50, 2, 1],
  );
  const last = [...files.slice(0, 50), file("49.txt", 1), file("50.png", 1)];
  assert.deepEqual(
    portions(last).map((portion) => portion.at(-1)?.name),
    ["49.txt", "50.png"],
  );
  const told = [];
  const routes = {
    sendFiles: async (_name, portion, how) => {
      if (portion.some(({ name }) => name === "more.png")) throw new Error("unplugged");
      how.told(1e12);
      return { written: portion.slice(1).map(({ name }) => name), refused: [{ name: portion[0].name, why: "is no picture." }] };
    },
  };
  const how = { replace: false, signal: new AbortController().signal, told: (bytes) => told.push(bytes) };
  const result = await send(routes, "fox", files, how);
  assert.deepEqual([result.written.length, result.refused.length, result.error.message], [50, 2, "unplugged"]);
  assert.deepEqual([told.at(-1), bytesOf(files)], [51 + 60 * MiB, 51 + 65 * MiB]);
  const stopped = await send(routes, "fox", files, { ...how, signal: AbortSignal.abort() });
  assert.deepEqual([stopped.written, stopped.error.name], [[], "AbortError"]);
});

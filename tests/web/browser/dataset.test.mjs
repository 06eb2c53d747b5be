/** The dataset node's contact sheet in ComfyUI's real page, in both renderers; the server is stub.py. */

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { World, found, load, workflow } from "../browser.mjs";

const tools = found();
const skip = typeof tools === "string" ? tools : false;
const SHOTS = process.env.SHOTS;
if (SHOTS) mkdirSync(SHOTS, { recursive: true });
const HOSTILE = "<img src=x onerror=window.__broken=1> a <b>fox</b>";

let world;
before(async () => (world = skip ? null : await World.start(tools)));
after(() => world?.close());

const empty = { active: [], runs: {}, queue: [], refuse: null };
const fields = () => ({
  count: 12,
  captions: { "00000.png": HOSTILE, "00003.png": "" },
  damaged: ["00002.png"],
  notes: ["no picture belongs to x.txt: not used."],
});

/** Puts the node into the graph, showing a folder. */
async function add(page, folder, values = {}, size = [420, 660]) {
  await page.evaluate(
    ({ folder, values, size }) => {
      const node = window.LiteGraph.createNode("ScionLoadImageCaptionDataset");
      node.pos = [80, 100];
      app.graph.add(node);
      node.setSize(size);
      for (const [name, value] of Object.entries({ folder, ...values })) {
        const widget = node.widgets.find((one) => one.name === name);
        widget.value = value;
        widget.callback?.(value);
      }
    },
    { folder, values, size },
  );
  await page.waitForTimeout(400);
}

async function until(page, selector, text) {
  const shown = page.locator(selector).first();
  for (let i = 0; i < 100; i++) {
    if ((await shown.innerText({ timeout: 300 }).catch(() => "")).includes(text)) return shown;
    await page.waitForTimeout(100);
  }
  return assert.fail(`${selector} never said ${text}: ${await shown.innerText({ timeout: 300 }).catch(() => "nothing")}`);
}

const status = (page, text) => until(page, ".scion-sheet-status", text);
const asked = async (kind) => (await world.asked()).filter(([what]) => what === kind);
const cell = (page, index) => page.locator(`.scion-cell[data-index="${index}"]`);
const shot = (page, name) => SHOTS && page.screenshot({ path: `${SHOTS}/${name}.png` });

/** Drops files as a browser does; the node hears it in Nodes 2.0, the sheet itself otherwise. */
const drop = (page, names) =>
  page.evaluate((names) => {
    const transfer = new DataTransfer();
    for (const name of names) transfer.items.add(new File([`{"nodes": [], "of": "${name}"}`], name));
    const target = document.querySelector(".scion-grid, .scion-sheet-empty");
    for (const kind of ["dragover", "drop"]) {
      target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, composed: true, dataTransfer: transfer }));
    }
  }, names);

for (const vue of [false, true]) {
  const renderer = vue ? "vue" : "classic";
  describe(vue ? "Nodes 2.0" : "classic renderer", { skip }, () => {
    let page;
    before(async () => (page = await world.page({ vue })));
    after(() => page.close());
    /** The server has these datasets, and nothing has gone wrong yet. */
    const begin = async (datasets) => {
      await load(page, { ...workflow([1]), nodes: [], last_node_id: 0 });
      // What the test before has asked for still names its dataset.
      await page.waitForTimeout(400);
      await world.state({ ...empty, datasets });
      page.faults.length = 0;
    };

    test("shows pictures, captions, problems and buckets; hostile text is text; the prompt stays as it was", async () => {
      await begin({ field: fields() });
      const before = (await asked("thumbnail")).length;
      await add(page, "field", { resolution: 512 });
      await status(page, "12 pictures · ⚠ 1 problem · ⚠ 1 without caption · 1 bucket");
      assert.equal(await cell(page, 0).locator(".scion-cell-caption").innerText(), HOSTILE);
      assert.match(await cell(page, 0).innerText(), /512×512/);
      assert.match(await cell(page, 2).innerText(), /⚠ 00002\.png is damaged or cut off/);
      assert.match(await cell(page, 3).innerText(), /⚠ no caption/);
      await page.waitForFunction(() => [...document.querySelectorAll(".scion-cell img[src]")].every((one) => one.complete));
      assert.ok(!(await asked("thumbnail")).slice(before).some(([, key]) => key === "00002.png"));
      await shot(page, `sheet-${renderer}`);
      await page.locator(".scion-sheet-bar select").selectOption("uncaptioned");
      await page.waitForFunction(() => document.querySelectorAll(".scion-cell").length === 1);
      await page.locator(".scion-sheet-bar select").selectOption("");
      await page.locator(".scion-sheet-bar input").fill("nothing at all");
      await until(page, ".scion-sheet-empty", "No picture fits");
      const saved = await page.evaluate(async () => ({
        values: app.graph.serialize().nodes[0].widgets_values,
        prompt: Object.keys((await app.graphToPrompt()).output["1"].inputs),
      }));
      assert.deepEqual(saved.values.slice(0, 3), ["field", "", 512]);
      assert.equal(saved.values.length, saved.prompt.length);
      assert.ok(!saved.prompt.includes("scion_sheet"));
      assert.equal(await page.evaluate(() => window.__broken), undefined);
      assert.deepEqual(page.faults, []);
    });

    test("10,000 pictures: only those near the view are elements and asked for; the keyboard gets everywhere", async (t) => {
      await begin({ many: { count: 10_000, checked: 60 } });
      const before = (await asked("thumbnail")).length;
      await add(page, "many");
      await status(page, "10,000 pictures · 60 checked");
      await cell(page, 0).focus();
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("End");
      await until(page, '.scion-cell[data-index="9999"] .scion-cell-caption', "picture 9999");
      assert.equal(await page.evaluate(() => document.activeElement.dataset.index), "9999");
      await page.waitForTimeout(500);
      assert.ok((await page.locator(".scion-cell").count()) < 60, `${await page.locator(".scion-cell").count()} cells`);
      const thumbnails = (await asked("thumbnail")).length - before;
      assert.ok(thumbnails < 80, `${thumbnails} thumbnails`);
      const frames = (by) =>
        page.evaluate(async (by) => {
          const grid = document.querySelector(".scion-grid");
          const times = [];
          for (let i = 0; i < 40; i++) {
            grid.scrollTop += by;
            times.push(await new Promise(requestAnimationFrame));
          }
          return (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
        }, by);
      // A machine that is busy with other things may not draw so often even where nothing moves.
      const still = await frames(0);
      const scrolled = await frames(-400);
      t.diagnostic(`${scrolled.toFixed(1)} frames a second; ${still.toFixed(1)} while nothing moves`);
      assert.ok(scrolled > Math.min(20, 0.4 * still), `${scrolled} frames a second, ${still} while nothing moves`);
      await status(page, "80 checked");
      assert.deepEqual(page.faults, []);
    });

    test("a caption is written, kept while it is not saved, and never lost without a question", async () => {
      await begin({ field: fields() });
      await add(page, "field");
      await status(page, "12 pictures");
      await cell(page, 3).focus();
      await page.keyboard.press("Enter");
      const dialog = page.locator("dialog.scion-caption-dialog");
      const text = dialog.locator("textarea");
      await text.fill("a fox\nin the snow");
      await page.keyboard.press("Alt+ArrowRight");
      assert.equal(await text.inputValue(), "picture 4, lying in the grass");
      await page.keyboard.press("Alt+ArrowLeft");
      assert.equal(await text.inputValue(), "a fox\nin the snow");
      assert.match(await dialog.innerText(), /5 words, 17 characters · ● Not saved/);
      for (let i = 0; i < 3; i++) await page.keyboard.press("Escape");
      assert.match(await dialog.locator("[role=alert]").innerText(), /1 caption is not saved/);
      await shot(page, `caption-${renderer}`);
      await dialog.getByRole("button", { name: "Go on editing" }).click();
      await world.state({ refuse: "the disk is full" });
      await page.keyboard.press("Control+Enter");
      await until(page, "dialog .scion-message", "the disk is full");
      assert.equal(await text.inputValue(), "a fox\nin the snow");
      await world.state({ refuse: null });
      await page.keyboard.press("Control+Enter");
      await page.waitForFunction(() => !/Not saved/.test(document.querySelector("dialog").innerText));
      assert.deepEqual((await asked("caption")).at(-1), ["caption", "00003.png", "a fox\nin the snow"]);
      await page.keyboard.press("Escape");
      await dialog.waitFor({ state: "detached" });
      await until(page, '.scion-cell[data-index="3"] .scion-cell-caption', "a fox in the snow");
      await status(page, "12 pictures · ⚠ 1 problem · buckets".split(" · b")[0]);
      assert.equal(await page.evaluate(() => document.activeElement.dataset.index), "3");
      assert.equal((await asked("items")).filter(([, query]) => query.fresh).length > 0, true);
      assert.equal(await page.evaluate(() => app.graph.nodes.length), 1);
    });

    test("a picture shows what is cut off; captions of a table are shown with the reason why they are not written here", async () => {
      await begin({ field: { ...fields(), table: "metadata.csv", problems: ["metadata.csv: line 7 …"] } });
      await add(page, "field", { resolution: 512 });
      await until(page, ".scion-sheet .scion-message", "metadata.csv: line 7");
      await cell(page, 0).click();
      await until(page, "dialog .scion-caption-facts", "75 %");
      const share = await page.evaluate(() => {
        const [inner, whole] = [".scion-caption-frame", ".scion-caption-whole"].map((one) =>
          document.querySelector(one).getBoundingClientRect(),
        );
        return [inner.width / whole.width, inner.height / whole.height, whole.width / whole.height];
      });
      assert.deepEqual(
        share.map((value) => value.toFixed(2)),
        ["0.75", "1.00", "1.33"],
      );
      await shot(page, `frame-${renderer}`);
      await page.keyboard.press("Alt+ArrowRight");
      await until(page, "dialog .scion-message", "metadata.csv gives the captions of this dataset");
      assert.equal(await page.locator("dialog textarea").getAttribute("readonly"), "");
      await page.keyboard.press("Escape");
    });

    test("dropped files go into a dataset and open no workflow; what is refused is told", async () => {
      await begin({ field: { count: 2, in_input: false } });
      await add(page, "field");
      await status(page, "2 pictures");
      const many = Array.from({ length: 60 }, (_, i) => `${i}.png`);
      await drop(page, [...many, "bad.png", "1.txt", "notes.md"]);
      const dialog = page.locator("dialog.scion-upload-dialog");
      await until(page, "dialog.scion-upload-dialog", "62 files");
      assert.match(await dialog.innerText(), /neither a picture nor a \.txt: notes\.md/);
      const name = dialog.locator("input[type=text]");
      assert.equal(await name.inputValue(), "dataset");
      await name.fill("../up");
      await dialog.getByRole("button", { name: "Add", exact: true }).click({ force: true });
      await until(page, "dialog.scion-upload-dialog [role=alert]", "Letters, digits");
      await name.fill("mine/foxes");
      await shot(page, `upload-${renderer}`);
      await dialog.getByRole("button", { name: "Add", exact: true }).click();
      await until(page, ".scion-upload-result", "61 files were added");
      assert.match(await dialog.innerText(), /1 was refused:\s+bad\.png is no picture/);
      await shot(page, `uploaded-${renderer}`);
      const sent = await asked("files");
      assert.deepEqual(
        sent.slice(-2).map(([, to, names, replace]) => [to, names.length, replace]),
        [
          ["mine/foxes", 50, "0"],
          ["mine/foxes", 12, "0"],
        ],
      );
      await page.keyboard.press("Escape");
      await status(page, "60 pictures");
      const now = await page.evaluate(() => [app.graph.nodes.length, app.graph.nodes[0].widgets[0].value]);
      assert.deepEqual(now, [1, "mine/foxes"]);
      assert.deepEqual(page.faults, []);
    });

    test("wired pictures: the sheet says so; a removed node asks nothing", async () => {
      await begin({ field: { count: 5, checked: 1 }, other: { count: 7 } });
      await add(page, "field");
      await status(page, "5 pictures");
      await page.evaluate(() => {
        const [node] = app.graph.nodes;
        const widget = node.widgets[0];
        widget.value = "other";
        widget.callback("other");
      });
      await status(page, "7 pictures");
      await shot(page, `light-${renderer}`);
      await page.evaluate(() => {
        const [node] = app.graph.nodes;
        const loader = window.LiteGraph.createNode("LoadImage");
        app.graph.add(loader);
        loader.connect(0, node, "images");
      });
      await until(page, ".scion-sheet-empty", "Pictures come by wire");
      const kept = await page.evaluate(() => app.graph.nodes[0].hideOutputImages);
      assert.equal(kept, false);
      const before = (await asked("items")).length;
      await page.evaluate(() => app.graph.remove(app.graph.nodes[0]));
      await page.waitForTimeout(1500);
      assert.equal((await asked("items")).length, before);
      assert.deepEqual(page.faults, []);
    });
  });
}

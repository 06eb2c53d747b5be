/** What all nodes of the pack have in ComfyUI's real page: a fold, words where they fail, lists that follow. */

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { World, found, load, workflow } from "../browser.mjs";

const tools = found();
const skip = typeof tools === "string" ? tools : false;
const SHOTS = process.env.SHOTS;
if (SHOTS) mkdirSync(SHOTS, { recursive: true });

const CONFIG = "ScionLoRATrainConfig";
const DATASET = "ScionLoadImageCaptionDataset";
const TRAIN = "ScionTrainLoRA";

/** A new node shows the first of them. */
const DATASETS = { datasets: { "scion-example (built in)": { count: 1 }, field: { count: 3 } } };

let world;
before(async () => {
  if (skip) return;
  world = await World.start(tools);
  await world.state(DATASETS);
});
after(() => world?.close());

const shot = (page, name) => SHOTS && page.screenshot({ path: `${SHOTS}/${name}.png` });

/** A graph of nodes of these types, whose ids begin at 1. */
const add = async (page, ...types) => {
  await load(page, { ...workflow([1]), nodes: [], last_node_id: 0 });
  await page.evaluate((types) => {
    types.forEach((type, i) => {
      const node = LiteGraph.createNode(type);
      node.pos = [40 + 460 * i, 90];
      app.graph.add(node);
    });
  }, types);
  await page.waitForTimeout(400);
};

const toasts = (page) => page.locator(".p-toast-message").allInnerTexts();

for (const late of ["advanced.js", "{dataset,config,panel}.js"]) {
  test(`parts of a node are in the same places though ${late} comes last`, { skip }, async () => {
    const page = await world.page({ late });
    await add(page, CONFIG, DATASET, TRAIN);
    const own = await page.evaluate(() =>
      app.graph.nodes.map(({ widgets }) =>
        widgets.map(({ name, serialize }, place) => (serialize === false ? [place, name] : null)).filter(Boolean),
      ),
    );
    const counts = await page.evaluate(() => app.graph.nodes.map(({ widgets }) => widgets.length));
    assert.deepEqual(own, [
      [
        [0, "scion_preset"],
        [counts[0] - 1, "▸ advanced"],
      ],
      [
        [counts[1] - 2, "▸ advanced"],
        [counts[1] - 1, "scion_sheet"],
      ],
      [
        [counts[2] - 2, "▸ advanced"],
        [counts[2] - 1, "scion_panel"],
      ],
    ]);
    await page.close();
  });
}

test("a node is as high as before when its advanced settings are folded again", { skip }, async () => {
  const page = await world.page();
  await add(page, DATASET);
  const heights = await page.evaluate(() => {
    const [node] = app.graph.nodes;
    node.setSize([node.size[0], 850]);
    const toggle = node.widgets.find(({ name }) => name === "▸ advanced");
    const seen = [node.size[1]];
    for (let i = 0; i < 2; i++) {
      toggle.callback();
      seen.push(node.size[1]);
    }
    return seen;
  });
  assert.equal(heights[0], 850);
  assert.ok(heights[1] > 850 && heights[2] === 850, heights.join());
  await page.close();
});

for (const vue of [false, true]) {
  describe(vue ? "Nodes 2.0" : "classic renderer", { skip }, () => {
    const renderer = vue ? "vue" : "classic";
    let page;
    before(async () => (page = await world.page({ vue })));
    after(() => page?.close());

    test("a node that fails says why; the training node does so by itself", async () => {
      await add(page, CONFIG, DATASET);
      const lines = Array.from({ length: 9 }, (_, i) => `${i}.jpg: is no picture.`);
      const failed = { prompt_id: "p", node_id: "2", executed: [], exception_type: "BadInput", traceback: [] };
      await world.tell(
        ["execution_error", { ...failed, node_type: TRAIN, exception_message: "out of memory" }],
        ["execution_error", { ...failed, node_type: "KSampler", exception_message: "not ours" }],
        ["execution_error", { ...failed, node_type: DATASET, exception_message: lines.join("\n") }],
      );
      await page.locator(".p-toast-message").first().waitFor();
      await page.waitForTimeout(300);
      await shot(page, `error-${renderer}`);
      const [said, ...others] = (await toasts(page)).filter((text) => text.includes("Scion ·"));
      assert.deepEqual(others, []);
      assert.match(said, /Scion · Load Image Caption Dataset\s+0\.jpg: is no picture\.\s.*5\.jpg: is no picture\.\s…$/s);
      assert.deepEqual(page.faults, []);
    });

    test("the contact sheet says how many pictures a run has checked, until it has checked them or ends", async () => {
      await add(page, DATASET);
      await page.evaluate(() => {
        const [{ widgets }] = app.graph.nodes;
        widgets[0].value = "field";
        widgets[0].callback("field");
      });
      const says = (text) => page.locator(".scion-sheet-status", { hasText: text }).waitFor({ timeout: 5000 });
      await says("3 pictures");
      for (const end of [
        ["checking", { node: "1", done: 800, total: 800 }],
        ["execution_interrupted", { prompt_id: "p", node_id: "1", node_type: DATASET, executed: [] }],
      ]) {
        await world.tell(["checking", { node: "7", done: 1, total: 2 }], ["checking", { node: "1", done: 120, total: 800 }]);
        await says("Checking 120 of 800");
        await world.tell(end);
        await says("3 pictures");
      }
      assert.deepEqual(page.faults, []);
    });

    test("a LoRA that was saved is listed without a notice of the host", async () => {
      const asked = page.waitForRequest(/object_info/);
      await world.tell(["saved", { node: "1", name: "a.safetensors" }]);
      await asked;
      await page.waitForTimeout(700);
      assert.deepEqual(
        (await toasts(page)).filter((text) => /updat/i.test(text)),
        [],
      );
      assert.deepEqual(page.faults, []);
    });

    test("the config node begins with the preset, and its box says what belongs into it", async () => {
      await add(page, CONFIG);
      await shot(page, `config-${renderer}`);
      const box = page.locator("textarea").first();
      // Nodes 2.0 has a label above it.
      const placeholder = vue ? "" : "Preview prompts, one per line; empty = captions of the dataset";
      assert.equal(await box.getAttribute("placeholder"), placeholder);
    });
  });
}

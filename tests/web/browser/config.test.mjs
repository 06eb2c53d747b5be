/** Presets, greyed widgets and the pack's settings in ComfyUI's real page, in both renderers; the server is stub.py. */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { World, found, load, workflow } from "../browser.mjs";
import { of, training } from "../script.mjs";

const tools = found();
const skip = typeof tools === "string" ? tools : false;
const SHOTS = process.env.SHOTS;
if (SHOTS) mkdirSync(SHOTS, { recursive: true });

const locale = (name) => JSON.parse(readFileSync(new URL(`../../../locales/zh/${name}.json`, import.meta.url), "utf8"));
const CHINESE = { ...locale("main"), nodeDefs: locale("nodeDefs"), settings: locale("settings") };

let world;
before(async () => (world = skip ? null : await World.start(tools)));
after(() => world?.close());

const EMPTY = { ...workflow([1]), last_node_id: 0, nodes: [] };

/** A graph of nodes by their types, side by side; a dataset and a config node are wired to the training node. */
const add = async (page, ...types) => {
  await load(page, EMPTY);
  await page.evaluate((types) => {
    const made = types.map((type, i) => {
      const node = LiteGraph.createNode(type);
      node.pos = [40 + 480 * i, 90];
      app.graph.add(node);
      return node;
    });
    const train = made.find((node) => node.type === "ScionTrainLoRA");
    for (const node of made) {
      const input = { ScionLoRATrainConfig: "config", ScionLoadImageCaptionDataset: "dataset" }[node.type];
      if (train && input) node.connect(0, train, train.findInputSlot(input));
    }
    app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState();
  }, types);
  await page.waitForTimeout(200);
};

const CONFIG = "ScionLoRATrainConfig";
const DATASET = "ScionLoadImageCaptionDataset";

/** Sets a widget as a person does. */
const set = async (page, type, name, value) => {
  await page.evaluate(
    ({ type, name, value }) => {
      const node = app.graph.nodes.find((one) => one.type === type);
      const widget = node.widgets.find((one) => one.name === name);
      widget.value = value;
      widget.callback?.(value, app.canvas, node);
    },
    { type, name, value },
  );
  await page.waitForTimeout(100);
};

/** What widgets of a node are: {value, disabled, tooltip} by name. */
const widgets = (page, type, ...names) =>
  page.evaluate(
    ({ type, names }) => {
      const node = app.graph.nodes.find((one) => one.type === type);
      const told = ({ value, disabled, tooltip }) => ({ value, disabled: Boolean(disabled), tooltip: tooltip ?? "" });
      return Object.fromEntries(names.map((name) => [name, told(node.widgets.find((one) => one.name === name))]));
    },
    { type, names },
  );

const preset = async (page) => (await widgets(page, CONFIG, "scion_preset")).scion_preset;

for (const vue of [false, true]) {
  describe(vue ? "Nodes 2.0" : "classic renderer", { skip }, () => {
    const kind = vue ? "vue" : "classic";
    let page;
    before(async () => (page = await world.page({ vue, width: 1500 })));
    after(() => page?.close());

    test("a preset fills the widgets in one step that can be undone, and tells what was changed after", async () => {
      await add(page, CONFIG);
      assert.equal((await preset(page)).value, "own settings");
      await set(page, CONFIG, "scion_preset", "style · careful");
      const filled = await widgets(page, CONFIG, "rank", "targets", "steps", "schedule", "min_snr_gamma", "seed");
      assert.deepEqual(
        Object.values(filled).map(({ value }) => value),
        [32, "attention+ff", 4000, "cosine", 5, 0],
      );
      assert.equal((await preset(page)).value, "style · careful");
      await page.evaluate(() => app.extensionManager.command.execute("Comfy.Undo"));
      await page.waitForTimeout(800);
      const undone = await widgets(page, CONFIG, "rank", "steps", "schedule", "scion_preset");
      assert.deepEqual(
        Object.values(undone).map(({ value }) => value),
        [16, 1000, "constant", "own settings"],
      );
      await set(page, CONFIG, "scion_preset", "style · careful");
      await set(page, CONFIG, "rank", 8);
      const changed = await preset(page);
      assert.equal(changed.value, "style · careful, changed");
      assert.match(changed.tooltip, /rank: 8 instead of 32$/);
      await set(page, CONFIG, "rank", 32);
      assert.equal((await preset(page)).value, "style · careful");
      assert.deepEqual(page.faults, []);
    });

    test("neither the prompt nor what is saved knows of the choice, and a workflow comes back as it was", async () => {
      await add(page, CONFIG);
      await set(page, CONFIG, "scion_preset", "object · fast");
      const saved = await page.evaluate(async () => ({
        graph: app.graph.serialize(),
        prompt: Object.values((await app.graphToPrompt()).output)[0].inputs,
      }));
      assert.equal(saved.graph.nodes[0].widgets_values.length, Object.keys(saved.prompt).length);
      assert.ok(!("scion_preset" in saved.prompt));
      assert.equal(saved.prompt.steps, 250);
      await load(page, saved.graph);
      const back = await widgets(page, CONFIG, "scion_preset", "rank", "output_checkpoint");
      assert.deepEqual(
        Object.values(back).map(({ value }) => value),
        ["object · fast", 8, "last"],
      );
    });

    test("what does nothing is grey and says why; what would be refused can be set back", async () => {
      await add(page, CONFIG, DATASET, "ScionTrainLoRA");
      await page.waitForTimeout(200);
      let now = await widgets(page, CONFIG, "lokr_factor", "cycles", "early_stop", "rank", "epochs", "dropout");
      assert.deepEqual(
        Object.entries(now).map(([name, { disabled }]) => [name, disabled]),
        [
          ["lokr_factor", true],
          ["cycles", true],
          ["early_stop", true],
          ["rank", false],
          ["epochs", true],
          ["dropout", false],
        ],
      );
      assert.match(now.lokr_factor.tooltip, /^Only the adapter lokr has factors\n\nWith lokr: a side of the first factor/);
      await set(page, CONFIG, "adapter", "lokr");
      await set(page, CONFIG, "lokr_factor", 4);
      await set(page, CONFIG, "adapter", "loha");
      await set(page, DATASET, "holdout", 2);
      now = await widgets(page, CONFIG, "lokr_factor", "early_stop", "dropout");
      assert.deepEqual([now.lokr_factor.disabled, now.early_stop.disabled, now.dropout.disabled], [false, false, true]);
      assert.match(now.lokr_factor.tooltip, /^To be set back: Only the adapter lokr has factors/);
      assert.ok(!now.early_stop.tooltip.includes("holds no picture out"));
      let data = await widgets(page, DATASET, "mask_floor", "prior_weight", "mask_folder");
      assert.deepEqual(
        Object.values(data).map(({ disabled }) => disabled),
        [true, true, true],
      );
      await set(page, DATASET, "mask", "folder");
      await set(page, DATASET, "regularisation", true);
      data = await widgets(page, DATASET, "mask_floor", "prior_weight", "mask_folder", "trigger");
      assert.deepEqual(
        Object.values(data).map(({ disabled }) => disabled),
        [false, false, false, true],
      );
      await page.evaluate(() => app.graph.nodes.find((node) => node.type === "ScionTrainLoRA").disconnectInput(1));
      await page.waitForTimeout(100);
      assert.equal((await widgets(page, CONFIG, "validate_every")).validate_every.disabled, false);
      assert.deepEqual(page.faults, []);
    });

    test("the renderer shows it: grey, with the reason under the pointer", async () => {
      await add(page, CONFIG);
      await page.evaluate(() => {
        const [node] = app.graph.nodes;
        node.showAdvanced = true;
        for (const widget of node.widgets) widget.hidden = false;
        node.setSize(node.computeSize());
        app.canvas.ds.offset = [300, -430];
        app.canvas.setDirty(true, true);
      });
      await set(page, CONFIG, "schedule", "cosine");
      await page.waitForTimeout(400);
      if (vue) {
        const cycles = page.locator("[data-node-id] input[disabled]").first();
        assert.ok(await cycles.count());
        const row = page.getByText("cycles", { exact: true }).first();
        await row.hover();
      } else {
        const [x, y] = await page.evaluate(() => {
          const [node] = app.graph.nodes;
          const widget = node.widgets.find((one) => one.name === "cycles");
          const { scale, offset } = app.canvas.ds;
          const canvas = app.canvas.canvas.getBoundingClientRect();
          return [
            canvas.left + (node.pos[0] + offset[0] + 120) * scale,
            canvas.top + (node.pos[1] + widget.last_y + 10 + offset[1]) * scale,
          ];
        });
        await page.mouse.move(x - 3, y);
        await page.mouse.move(x, y);
      }
      const tip = page.locator(".p-tooltip, .node-tooltip").filter({ hasText: "Of cosine_with_restarts only" });
      await tip.first().waitFor({ timeout: 5000 });
      if (SHOTS) await page.screenshot({ path: `${SHOTS}/grey-${kind}.png` });
      assert.deepEqual(page.faults, []);
    });

    test("a new config node keeps as many checkpoints as the settings say, a loaded one as many as it says", async () => {
      await page.evaluate(() => app.extensionManager.setting.set("Scion.KeepCheckpoints", 9));
      await add(page, CONFIG);
      assert.equal((await widgets(page, CONFIG, "keep_checkpoints")).keep_checkpoints.value, 9);
      const saved = await page.evaluate(() => app.graph.serialize());
      await page.evaluate(() => app.extensionManager.setting.set("Scion.KeepCheckpoints", 2));
      await load(page, saved);
      assert.equal((await widgets(page, CONFIG, "keep_checkpoints")).keep_checkpoints.value, 9);
    });
  });
}

/** The pack's section of the settings says all of this. */
async function dialogSays(page, ...wanted) {
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.ShowSettingsDialog"));
  const dialog = page.getByRole("dialog").first();
  await dialog.getByText("Scion", { exact: true }).first().click();
  await dialog.locator(".scion-folders li").first().waitFor();
  const text = await dialog.innerText();
  for (const said of [...wanted, "/srv/<b>more</b>", "/srv/user/scion.json"])
    assert.ok(text.includes(said), `${said} in ${text}`);
}

describe("the pack's own settings", { skip }, () => {
  test("are in the dialog; the theme of the chart is obeyed at once", async () => {
    await world.state({ active: [], runs: {}, queue: [], refuse: null });
    const page = await world.page();
    await load(page, workflow([5]));
    await world.tell(...training(of("5", "a"), 700));
    await page.locator(".scion-status", { hasText: "Training" }).waitFor();
    const seen = () =>
      page.locator(".scion-panel canvas").evaluate((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const colours = new Set();
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) colours.add(data.slice(i, i + 3).join());
        return [...colours];
      });
    for (const [theme, loss] of [
      ["host", "59,130,246"],
      ["safe", "86,180,233"],
      ["contrast", "255,255,255"],
    ]) {
      await page.evaluate((theme) => app.extensionManager.setting.set("Scion.ChartTheme", theme), theme);
      await page.waitForTimeout(400);
      assert.ok((await seen()).includes(loss), `${theme}: ${loss}`);
      if (SHOTS) await page.screenshot({ path: `${SHOTS}/theme-${theme}.png` });
    }
    await dialogSays(page, "Theme of the loss chart", "Seconds between", "Checkpoints that a new");
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/settings-en.png` });
    assert.deepEqual(page.faults, []);
    await page.close();
  });

  test("speak Chinese in a Chinese page, as presets and reasons do", async () => {
    await world.state({ i18n: { zh: CHINESE } });
    const page = await world.page({ locale: "zh", theme: "light" });
    await add(page, CONFIG);
    await set(page, CONFIG, "scion_preset", "人物 · 快速");
    const now = await widgets(page, CONFIG, "steps", "lokr_factor");
    assert.equal(now.steps.value, 500);
    assert.match(now.lokr_factor.tooltip, /^只有适配器 lokr 有因子\n\n[^\n]*lokr/);
    await dialogSays(page, "损失曲线的主题", "训练消息的间隔秒数");
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/settings-zh.png` });
    assert.deepEqual(page.faults, []);
    await page.close();
  });
});

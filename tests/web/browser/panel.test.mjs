/** The panel in ComfyUI's real page, in both renderers; the server is stub.py. */

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, afterEach, before, describe, test } from "node:test";

import { World, found, load, workflow } from "../browser.mjs";
import { history, of, preview, steps, training } from "../script.mjs";

const tools = found();
const skip = typeof tools === "string" ? tools : false;
const SHOTS = process.env.SHOTS;
if (SHOTS) mkdirSync(SHOTS, { recursive: true });

let world;
before(async () => (world = skip ? null : await World.start(tools)));
after(() => world?.close());

const empty = { active: [], runs: {}, queue: [], refuse: null };

/** What each panel says, by its node's id. */
const said = (page) =>
  page.evaluate(() => {
    const all = {};
    const walk = (graph, before) => {
      for (const node of graph.nodes) {
        const root = node.widgets?.find((widget) => widget.name === "scion_panel")?.element;
        const text = (selector) => root.querySelector(selector).textContent;
        if (root)
          all[before + node.id] = { status: text(".scion-status"), phase: text(".scion-phase"), foot: text(".scion-foot") };
        if (node.subgraph) walk(node.subgraph, `${before}${node.id}:`);
      }
    };
    walk(app.rootGraph ?? app.graph, "");
    return all;
  });

async function until(page, node, status, phase) {
  for (let i = 0; i < 150; i++) {
    const panel = (await said(page))[node];
    if (panel?.status.includes(status) && (phase === undefined || panel.phase === phase)) return panel;
    await page.waitForTimeout(100);
  }
  assert.fail(`node ${node} never said ${status} ${phase}: ${JSON.stringify(await said(page))}`);
}

const panelOf = (page, index = 0) => page.locator(".scion-panel").nth(index);

/** Drags the graph with the middle button for 60 moves and counts the frames; `meanwhile` is called ten times. */
async function dragged(page, [x, y], meanwhile) {
  await page.evaluate(() => {
    window.__frames = [];
    window.__from = app.canvas.ds.offset[0];
    const tick = (at) => {
      window.__frames?.push(at);
      if (window.__frames) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  await page.mouse.move(x, y);
  await page.mouse.down({ button: "middle" });
  for (let i = 1; i <= 60; i++) {
    await page.mouse.move(x + 2 * i, y + i);
    if (i % 6 === 0) await meanwhile(i / 6);
  }
  await page.mouse.up({ button: "middle" });
  return page.evaluate(() => {
    const frames = window.__frames;
    window.__frames = null;
    const rate = (1000 * (frames.length - 1)) / (frames.at(-1) - frames[0]);
    return { rate, moved: app.canvas.ds.offset[0] - window.__from };
  });
}

for (const vue of [false, true]) {
  describe(vue ? "Nodes 2.0" : "classic renderer", { skip }, () => {
    const opened = [];
    const open = async (more) => {
      const page = await world.page({ vue, ...more });
      opened.push(page);
      return page;
    };
    // Pages that stay open draw on, and make the next ones slow.
    afterEach(() => Promise.all(opened.splice(0).map((page) => page.close())));

    test("draws, updates, and shows hostile text as text", async () => {
      await world.state(empty);
      const page = await open();
      await load(page, workflow([5]));
      await world.tell(["working", { ...of("5", null), what: "scanning", done: 120, total: 800 }]);
      await until(page, "5", "Scanning pictures", "120 of 800");
      await world.tell(...training(of("5", "a"), 700), ["warning", { ...of("5", "a"), message: "<i>odd</i>" }]);
      await until(page, "5", "Training", "700 of 1,200");
      const panel = panelOf(page);
      assert.match(await panel.locator(".scion-figures").innerText(), /0\.1082, step 600[\s\S]*3:30[\s\S]*7\.3 GiB/);
      assert.equal(await panel.locator(".scion-message").innerText(), "<i>odd</i>");
      const inked = await panel.locator("canvas").evaluate((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, i) => i % 4 === 3 && value > 0).length;
      });
      assert.ok(inked > 2000, `${inked} pixels`);
      await panel.locator(".scion-strip button").last().click();
      const dialog = page.locator("dialog.scion-dialog");
      assert.match(await dialog.innerText(), /<img src=x onerror=window.__broken=1> a photo/);
      await dialog.locator("select").selectOption("step-200.png");
      const slider = dialog.locator("input[type=range]");
      await slider.focus();
      await page.keyboard.press("Home");
      const over = dialog.locator(".scion-over").first();
      assert.match(
        await over.evaluate((element) => getComputedStyle(element).clipPath),
        /100%|inset\(0px calc\(100% \+ 0|inset\(0px 100% 0px 0px\)/,
      );
      if (SHOTS) await page.screenshot({ path: `${SHOTS}/dialog-${vue ? "vue" : "classic"}.png` });
      await page.keyboard.press("Escape");
      assert.equal(await dialog.count(), 0);
      assert.equal(await page.evaluate(() => window.__broken), undefined);
      assert.equal(await page.evaluate(() => app.graph.nodes.length), 1);
      if (SHOTS) await page.screenshot({ path: `${SHOTS}/panel-${vue ? "vue" : "classic"}.png` });
      assert.deepEqual(page.faults, []);
    });

    test("two nodes do not cross-talk, nor do the nodes of another workflow", async () => {
      const other = { extra_pnginfo: { workflow: { id: "22222222-2222-4222-8222-222222222222" } } };
      await world.state({ ...empty, queue: [[0, "elsewhere", {}, other, []]] });
      const page = await open();
      await load(page, workflow([5, 7]));
      await world.tell(...training(of("5", "a"), 100), ...training(of("7", "b"), 300));
      await until(page, "5", "Training", "100 of 1,200");
      await until(page, "7", "Training", "300 of 1,200");
      await world.tell(...training(of("5", "c", "elsewhere"), 900));
      await page.waitForTimeout(500);
      assert.equal((await said(page))["5"].phase, "100 of 1,200");
      assert.match((await said(page))["5"].foot, /Run a/);
    });

    test("survives a reload and a late join: the run is found by what trains, then by the id in the workflow", async () => {
      await world.state({
        ...empty,
        active: [{ ...of("5", "a"), phase: null, step: 300, total: 1200 }],
        runs: { a: history("a", 300, 1200, { active: true }) },
      });
      const page = await open();
      await load(page, workflow([5]));
      await until(page, "5", "Training", "300 of 1,200");
      await world.tell(["step", { ...of("5", "a"), ...steps(301, 50, 1200) }]);
      await until(page, "5", "Training", "350 of 1,200");
      const saved = await page.evaluate(() => app.graph.serialize());
      assert.equal(saved.nodes[0].properties.scion_run, "a");
      assert.deepEqual(saved.nodes[0].widgets_values.slice(0, 3), ["lora", "resume", "refuse"]);
      await world.state({ ...empty, runs: { a: history("a", 800, 1200) } });
      await world.ready(page);
      await load(page, saved);
      await until(page, "5", "Stopped", "800 of 1,200");
    });

    test("a run that goes on is followed by whoever remembers it, also under another id", async () => {
      await world.state({
        ...empty,
        active: [{ ...of("5", "a"), phase: null, step: 300, total: 1200 }],
        runs: { a: history("a", 300, 1200, { active: true }) },
      });
      const page = await open();
      await load(page, workflow([9], { properties: { 9: { scion_run: "a" } } }));
      await world.tell(["step", { ...of("5", "a"), ...steps(301, 50, 1200) }]);
      await until(page, "9", "Training", "350 of 1,200");
    });

    test("a result that the host had in its cache shows its run, though no event told of it", async () => {
      await world.state({ ...empty, runs: { old: history("old", 700) } });
      const page = await open();
      await load(page, workflow([5]));
      await world.tell([
        "executed",
        { node: "5", display_node: "5", prompt_id: "p", output: { scion: [{ run: "old", status: "finished" }] } },
      ]);
      await until(page, "5", "Stopped", "700 of 1,200");
    });

    test("buttons do what they say; without a training they say why not", async () => {
      await world.state({
        ...empty,
        runs: { old: history("old", 700, 1200, { status: "finished", early: true, lora: "fox.safetensors" }) },
      });
      const page = await open();
      await load(page, workflow([5, 6], { properties: { 5: { scion_run: "old" } } }));
      await until(page, "5", "Finished early");
      assert.match(await panelOf(page).locator(".scion-message").innerText(), /has not improved since step \d/);
      const button = (name, index = 0) => panelOf(page, index).getByRole("button", { name });
      assert.equal(await button("Stop and use").count(), 0, "there is nothing to stop");
      assert.equal(await button("Stop and use", 1).getAttribute("title"), "Nothing trains in this node now");
      const before = (await world.asked()).length;
      await button("Stop and use", 1).click({ force: true });
      await button("Continue").click();
      await page.waitForTimeout(1000);
      assert.deepEqual((await world.asked()).slice(before), [
        ["old", "continue"],
        ["graph", "queued"],
      ]);
      await world.tell(...training(of("5", "a"), 200));
      await until(page, "5", "Training", "200 of 1,200");
      for (const name of ["Save checkpoint", "Sample now", "Stop and use"]) {
        await button(name).click();
        await until(page, "5", "Training", `Asked for: ${name}`);
        if (name === "Save checkpoint") await world.tell(["checkpoint", { ...of("5", "a"), step: 201, name: "x" }]);
        if (name === "Sample now") await world.tell(["preview", { ...of("5", "a"), ...preview(202) }]);
        if (name !== "Stop and use") await until(page, "5", "Training", "200 of 1,200");
      }
      assert.deepEqual((await world.asked()).slice(before + 2), [
        ["a", "checkpoint"],
        ["a", "sample"],
        ["a", "finish"],
      ]);
      await world.tell([
        "finished",
        { ...of("5", "a"), status: "finished", early: true, step: 203, total: 1200, lora: "fox.safetensors", lines: [] },
      ]);
      await until(page, "5", "Finished early");
      assert.match(await page.locator(".p-toast").first().innerText(), /Ended at step 203 of 1,200[\s\S]*fox\.safetensors/);
    });

    test("a copy has no run; a node that is removed listens no more", async () => {
      await world.state({ ...empty, runs: { old: history("old", 700) } });
      const page = await open();
      await load(page, workflow([5], { properties: { 5: { scion_run: "old" } } }));
      await until(page, "5", "Stopped");
      await page.evaluate(() => {
        app.canvas.selectNode(app.graph.nodes[0]);
        app.canvas.copyToClipboard();
        app.canvas.pasteFromClipboard();
      });
      await page.waitForTimeout(400);
      const runs = await page.evaluate(() => app.graph.nodes.map((node) => node.properties.scion_run ?? null));
      assert.deepEqual(runs, ["old", null]);
      const listening = () => page.evaluate(async () => (await import("/extensions/scion/js/panel.js")).store.listening);
      const toasts = 1;
      assert.equal(await listening(), toasts + 2);
      const panels = await page.evaluate(async () => {
        const kept = app.graph.nodes.map((node) => node.widgets.find((widget) => widget.name === "scion_panel").element);
        for (const node of [...app.graph.nodes]) app.graph.remove(node);
        window.__kept = kept;
        return kept.length;
      });
      assert.equal(panels, 2);
      assert.equal(await listening(), toasts);
      await world.tell(...training(of("5", "b"), 100));
      await page.waitForTimeout(400);
      const texts = await page.evaluate(() => window.__kept.map((root) => root.querySelector(".scion-status").textContent));
      assert.deepEqual(texts, ["■ Stopped", ""]);
      assert.deepEqual(page.faults, []);
    });

    test("a node in a subgraph hears of itself", async () => {
      await world.state(empty);
      const page = await open();
      await load(page, workflow([5]));
      const id = await page.evaluate(() => {
        const node = app.graph.nodes[0];
        const { subgraph } = app.graph.convertToSubgraph(new Set([node]));
        const outer = app.graph.nodes.find((one) => one.subgraph === subgraph);
        return `${outer.id}:${subgraph.nodes[0].id}`;
      });
      await world.tell(...training(of(id, "a"), 150));
      await until(page, id, "Training", "150 of 1,200");
    });

    test("a server that restarts: the run is no longer live, and its history is there", async () => {
      await world.state(empty);
      const page = await open();
      await load(page, workflow([5]));
      await world.tell(...training(of("5", "a"), 150));
      await until(page, "5", "Training", "150 of 1,200");
      await world.state({ ...empty, runs: { a: history("a", 140, 1200, { status: "unfinished" }) } });
      await world.drop();
      await until(page, "5", "Unfinished", "140 of 1,200");
      assert.match(await panelOf(page).locator(".scion-message").innerText(), /Press Continue/);
      assert.equal(await panelOf(page).getByRole("button", { name: "Sample now" }).count(), 0);
    });

    test("100,000 points stay smooth while the graph is dragged and the run goes on", async (t) => {
      const total = 100_000;
      await world.state({ ...empty });
      const page = await open();
      const bare = await dragged(page, [300, 500], () => {});
      await load(page, workflow([5]));
      const who = of("5", "a");
      await world.tell(["started", { ...who, step: 0, total }]);
      for (let first = 1; first <= total; first += 5000) await world.tell(["step", { ...who, ...steps(first, 5000, total) }]);
      await until(page, "5", "Training", "100,000 of 100,000");
      const box = await panelOf(page).boundingBox();
      // A machine that is busy with other things may not draw even an empty graph so often, and may be busy for a moment.
      const enough = Math.min(30, 0.6 * bare.rate);
      let full;
      for (let attempt = 0; attempt < 3 && !(full?.rate >= enough); attempt++) {
        full = await dragged(page, [box.x + 150, box.y + 150], (i) =>
          world.tell(["step", { ...who, ...steps(total - 10 + i, 1, total) }]),
        );
        t.diagnostic(`${full.rate.toFixed(1)} frames a second; ${bare.rate.toFixed(1)} of an empty graph`);
        await page.evaluate((moved) => (app.canvas.ds.offset[0] -= moved), full.moved);
        await page.waitForTimeout(500);
      }
      assert.ok(full.moved > 50, `moved by ${full.moved}`);
      assert.ok(full.rate >= enough, `${full.rate} frames a second, ${bare.rate} of an empty graph`);
    });

    test("the wheel over the panel moves the graph, a drag on it does not scroll it away", async () => {
      await world.state(empty);
      const page = await open();
      await load(page, workflow([5]));
      const box = await panelOf(page).boundingBox();
      const before = await page.evaluate(() => app.canvas.ds.scale);
      await page.mouse.move(box.x + 100, box.y + 150);
      await page.mouse.wheel(0, -200);
      await page.waitForTimeout(300);
      assert.notEqual(await page.evaluate(() => app.canvas.ds.scale), before);
    });
  });
}

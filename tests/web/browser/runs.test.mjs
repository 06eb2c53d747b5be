/** The runs in the sidebar of ComfyUI's real page; the server is stub.py. */

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, afterEach, before, describe, test } from "node:test";

import { World, found, load, workflow } from "../browser.mjs";
import { history, listed, of, preview, steps, training } from "../script.mjs";

const tools = found();
const skip = typeof tools === "string" ? tools : false;
const SHOTS = process.env.SHOTS;
if (SHOTS) mkdirSync(SHOTS, { recursive: true });

const HOSTILE = '<img src=x onerror=window.__broken=1> "fox"';
const empty = { active: [], runs: {}, list: [], workflows: {}, queue: [], refuse: null };
const fox = listed("fox-111111111111");
const dog = listed("dog-222222222222", { status: "stopped", step: 700, finished_at: null, lora: null, preview: null });
const cat = listed("cat-333333333333", { early: true, step: 900, validation: null });

let world;
before(async () => (world = skip ? null : await World.start(tools)));
after(() => world?.close());

const card = (page, name) => page.locator(".scion-run", { has: page.getByRole("heading", { name, exact: true }) });
const button = (within, name) => within.getByRole("button", { name, exact: true });
const asked = async (what) => (await world.asked()).filter(([, one]) => one === what);

describe("runs in the sidebar", { skip }, () => {
  const opened = [];
  /** A page with the list open. */
  const open = async (state, more = {}) => {
    await world.state({ ...empty, ...state });
    const page = await world.page(more);
    opened.push(page);
    await page.getByRole("button", { name: more.locale === "zh" ? /训练记录/ : /^Scion: every/ }).click();
    await page.locator(".scion-runs").waitFor();
    return page;
  };
  // Another page would ask, too.
  afterEach(() => Promise.all(opened.splice(0).map((page) => page.close())));

  test("each run tells its state, numbers, preview and file; what names say is text", async () => {
    const odd = { ...listed("odd-444444444444"), name: HOSTILE, lora: `${HOSTILE}.safetensors`, workflow: false };
    const page = await open({
      list: [odd, fox, dog, cat],
      runs: { [fox.run]: history(fox.run, 700, 1200, { previews: [preview(600)] }) },
    });
    await card(page, "dog").waitFor();
    assert.equal(await page.locator(".scion-runs .scion-space").innerText(), "Runs: 4");
    assert.equal(await page.locator(".scion-runs h2").innerText(), "Scion runs");
    const said = await card(page, "fox").innerText();
    assert.match(
      said,
      /✓ Finished[\s\S]*rank 16 · 1\.2e-3\s+Steps 1,200 of 1,200 · 3\.0 MiB[\s\S]*Ended [\s\S]*Loss 0\.1082 · Best validation 0\.1231, step 600/,
    );
    assert.match(said, /fox\.safetensors/);
    assert.match(await card(page, "dog").innerText(), /■ Stopped[\s\S]*700 of 1,200[\s\S]*no LoRA file yet/);
    assert.match(await card(page, "cat").innerText(), /✓ Finished early/);
    const bad = page.locator(".scion-run").first();
    assert.equal(await bad.locator("h3").innerText(), HOSTILE);
    assert.match(await button(bad, "Open workflow").getAttribute("title"), /No workflow was kept/);
    await button(bad, "Open workflow").click({ force: true });
    await card(page, "fox").locator(".scion-run-preview").click();
    const dialog = page.locator("dialog.scion-dialog");
    assert.match(await dialog.locator("h2").innerText(), /Preview of step 600/);
    await page.keyboard.press("Escape");
    assert.equal(await page.evaluate(() => window.__broken), undefined);
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/runs-dark.png` });
    assert.deepEqual(page.faults, []);
  });

  test("a run that trains is followed; one that begins or ends is asked for once, and nothing else asks", async () => {
    const live = { ...dog, active: true };
    const page = await open({
      list: [live],
      active: [{ ...of("5", dog.run), phase: null, step: 700, total: 1200 }],
      runs: { [dog.run]: history(dog.run, 700, 1200, { active: true }) },
    });
    const its = card(page, "dog");
    await its.getByText("▶ Training").waitFor();
    assert.equal(await button(its, "Delete").getAttribute("title"), "This run trains now; stop it first");
    assert.equal(await button(its, "Resume").count(), 0);
    const before = (await asked("list")).length;
    // A loss that is far from the row's: it is what the card keeps when the run ends, until the server says the same.
    for (let first = 701; first < 800; first += 10)
      await world.tell(["step", { ...of("5", dog.run), ...steps(first, 10, 1200) }]);
    await its.getByText("Steps 800 of 1,200").waitFor();
    assert.equal((await asked("list")).length, before);
    const shown = await its.getByText(/^Loss/).innerText();
    await world.state({ list: [fox, { ...dog, status: "finished", step: 1200, loss: 0.5 }] });
    await page.evaluate(async () => {
      const { store } = await import("/extensions/scion/js/panel.js");
      store.listen(
        (_, what) =>
          what === "finished" &&
          requestAnimationFrame(() =>
            requestAnimationFrame(() => {
              window.__ended = [...document.querySelectorAll(".scion-run-live, .scion-run")].map((one) => one.innerText).join();
            }),
          ),
      );
    });
    await world.tell([
      "finished",
      { ...of("5", dog.run), status: "finished", step: 1200, total: 1200, lora: "dog.safetensors", lines: [] },
    ]);
    await card(page, "fox").waitFor();
    await its.getByText("✓ Finished").waitFor();
    assert.equal((await asked("list")).length, before + 1);
    const ended = await page.evaluate(() => window.__ended);
    assert.ok(ended.includes("✓ Finished") && ended.includes(shown.split(" · ")[0]), ended);
    await its.getByText("Loss 0.5000").waitFor();
  });

  test("resuming opens the run's workflow in a tab of its own and queues it; what is open already is queued as it is", async () => {
    const kept = workflow([5], { id: "33333333-3333-4333-8333-333333333333" });
    kept.nodes[0].widgets_values[1] = "new";
    const runs = Object.fromEntries([dog, cat].map(({ run }) => [run, history(run, 700)]));
    const page = await open({ list: [dog, cat], runs, workflows: { [dog.run]: kept, [cat.run]: kept } });
    await load(page, workflow([1, 2]));
    const tabs = () => page.evaluate(() => app.extensionManager.workflow.openWorkflows.map((one) => one.filename));
    const before = (await tabs()).length;
    await button(card(page, "dog"), "Resume").click();
    await page.getByText("Queued: dog goes on from step 700.").waitFor();
    assert.equal((await asked("queued")).length, 1);
    assert.equal(await page.evaluate(() => app.graph.nodes[0].properties.scion_run), dog.run);
    assert.equal((await tabs()).length, before + 1);
    assert.ok((await tabs()).includes(dog.run), await tabs());
    const existing = () =>
      page.evaluate(() => app.graph.nodes.map((node) => node.widgets.find((one) => one.name === "existing").value));
    assert.deepEqual(await existing(), ["resume"]);
    await button(card(page, "cat"), "Continue").click();
    await page.getByText("Queued: cat goes on from step 900.").waitFor();
    assert.equal((await tabs()).length, before + 1);
    const wishes = (await world.asked()).filter(([, what]) => ["continue", "queued"].includes(what)).map(([, what]) => what);
    assert.deepEqual(wishes, ["continue", "queued", "continue", "queued"]);
    assert.deepEqual(page.faults, []);
  });

  test("what failed says why, at most in three lines; a run that is queued cannot be queued again until it had its turn", async () => {
    const failure = `The pictures are gone. ${"A long story follows here. ".repeat(20)}`;
    const bad = { ...dog, status: "unfinished", failure };
    const kept = workflow([5], { id: "33333333-3333-4333-8333-333333333333" });
    const page = await open({ list: [bad], runs: { [dog.run]: history(dog.run, 700) }, workflows: { [dog.run]: kept } });
    const its = card(page, "dog");
    await its.getByText("✕ Failed").waitFor();
    const told = its.locator(".scion-run-failure");
    assert.equal(await told.getAttribute("title"), failure);
    assert.ok((await told.boundingBox()).height < 60);
    const resume = button(its, "Resume");
    assert.match(await resume.getAttribute("title"), /in a tab and queues it: it goes on from step 700\. .*may fail again/);
    const before = (await asked("queued")).length;
    await resume.click();
    await resume.click({ force: true });
    await page.getByText("Queued: dog goes on from step 700.").waitFor();
    await resume.click({ force: true });
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/runs-failed.png` });
    assert.equal(await resume.getAttribute("title"), "This run is queued");
    const status = (queue_remaining) => ["status", { status: { exec_info: { queue_remaining } } }];
    await world.tell(status(1));
    await page.waitForTimeout(100);
    assert.equal(await resume.getAttribute("aria-disabled"), "true");
    await world.tell(status(0));
    await its.locator('button[aria-disabled="false"]', { hasText: "Resume" }).waitFor();
    assert.equal((await asked("queued")).length, before + 1);
    assert.deepEqual(page.faults, []);
  });

  test("deleting asks first, names the size, and says what was freed", async () => {
    const page = await open({ list: [fox, dog] });
    await button(card(page, "dog"), "Delete").click();
    const question = page.getByRole("dialog");
    assert.match(
      await question.innerText(),
      /Delete dog with its LoRA[\s\S]*3\.0 MiB[\s\S]*models\/loras stay[\s\S]*dog-222222222222/,
    );
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/runs-delete.png` });
    await page.keyboard.press("Escape");
    await question.waitFor({ state: "detached" });
    assert.deepEqual(await asked("delete"), []);
    await button(card(page, "dog"), "Delete").click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.getByText("Deleted dog: 3.0 MiB freed.").waitFor();
    await card(page, "dog").waitFor({ state: "detached" });
    assert.deepEqual(await asked("delete"), [[dog.run, "delete"]]);
    assert.equal(await card(page, "fox").count(), 1);
  });

  test("two runs are compared: lines, values at a step by the keyboard, and the settings that differ", async () => {
    const settings = (rank, rate) => ({
      "adapter.rank": rank,
      "optimizer.learning_rate": rate,
      "run.steps": rank,
      "adapter.targets": ["attention"],
      "adapter.start_from": rank === 32 ? "" : null,
    });
    const other = { ...dog, name: "fox", settings: { ...dog.settings, "adapter.rank": 32 } };
    const page = await open({
      list: [fox, other, cat],
      runs: {
        [fox.run]: history(fox.run, 1200, 1200, { status: "finished", settings: settings(16, 1e-4) }),
        [dog.run]: history(dog.run, 700, 1200, { settings: settings(32, 1e-4), dataset: ["dogs", ""], loss: 0.2 }),
      },
    });
    await card(page, "cat").waitFor();
    const compare = page.locator(".scion-runs .scion-tools .scion-button").first();
    assert.equal(await compare.getAttribute("aria-disabled"), "true");
    for (const i of [0, 1]) await page.locator(".scion-run-select input").nth(i).check();
    assert.equal(await page.getByText("Selected", { exact: true }).count(), 2);
    assert.equal(await compare.innerText(), "Compare 2 runs");
    await compare.click();
    const dialog = page.locator("dialog.scion-dialog");
    await dialog.locator("canvas").waitFor();
    const rows = await dialog.locator("tbody tr").allInnerTexts();
    assert.deepEqual(
      rows.map((row) => row.split("\t")[0]),
      ["Steps", "Best validation", "Dataset", "rank"],
    );
    assert.match(rows[2], /fox\s+dogs, wired pictures/);
    assert.match(rows[3], /16\s+32/);
    assert.equal(await dialog.locator("tbody th", { hasText: "rank" }).getAttribute("title"), "adapter.rank");
    assert.match(await dialog.locator("thead").innerText(), /fox · rank 16[\s\S]*fox · rank 32/);
    assert.match(await dialog.locator(".scion-curves-legend").innerText(), /16: 0\.1082\s[\s\S]*32: 0\.2000/);
    await dialog.locator("canvas").focus();
    await page.keyboard.press("End");
    assert.match(await dialog.locator(".scion-curves-legend").innerText(), /rank 32: –[\s\S]*step 1,200/);
    await page.keyboard.press("Home");
    for (let i = 0; i < 5; i++) await page.keyboard.press("Shift+ArrowRight");
    assert.match(await dialog.locator(".scion-curves-legend").innerText(), /rank 32: 0\.\d+[\s\S]*step 601/);
    await button(dialog, "log").click();
    await page.waitForTimeout(200);
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/runs-compare.png` });
    assert.deepEqual(page.faults, []);
  });

  test("no runs: what to do; an error: what it is, and another try", async () => {
    const page = await open({ refuse: "the disk is asleep" });
    await page.getByText("The runs could not be loaded: the disk is asleep").waitFor();
    await world.state(empty);
    await button(page.locator(".scion-runs"), "Try again").click();
    await page.getByText("No runs yet. Queue a workflow with Train LoRA").waitFor();
    assert.equal(await page.getByText("Try again").isVisible(), false);
  });

  test("300 runs are drawn within a second, and found by their names", async (t) => {
    const list = Array.from({ length: 300 }, (_, i) => listed(`run ${i}-${String(i).padStart(12, "0")}`));
    const page = await open({ list: [] });
    await page.getByText("No runs yet").waitFor();
    const drawn = () =>
      page.evaluate(async () => {
        const { store } = await import("/extensions/scion/js/panel.js");
        const [soon, start] = [300, performance.now()];
        store._changed({ run: null }, "ended");
        while (document.querySelectorAll(".scion-run").length < 300) await new Promise(requestAnimationFrame);
        await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
        return performance.now() - start - soon;
      });
    let took = Infinity;
    // A machine that is busy with other things may be so for a moment.
    for (let attempt = 0; attempt < 3 && took >= 1000; attempt++) {
      await world.state(empty);
      await page
        .getByRole("button", { name: "Load the list again" })
        .click({ timeout: 2000 })
        .catch(() => {});
      await page.getByText("No runs yet").waitFor();
      await world.state({ ...empty, list });
      took = await drawn();
    }
    t.diagnostic(`300 runs: ${took.toFixed(0)} ms`);
    assert.ok(took < 1000, `${took} ms`);
    await page.locator(".scion-search").fill("RUN 27");
    assert.equal(await page.locator(".scion-run:visible").count(), 11);
    await page.locator(".scion-search").fill("nothing");
    await page.getByText("No run is called so.").waitFor();
  });

  test("in Chinese and in light, beside Nodes 2.0", async () => {
    const words = await import("../../../locales/zh/main.json", { with: { type: "json" } });
    const page = await open({ list: [fox, dog, cat], i18n: { zh: words.default } }, { locale: "zh", theme: "light", vue: true });
    await card(page, "dog").getByText("恢复训练").waitFor();
    await world.tell(...training(of("5", dog.run), 800));
    await page.waitForTimeout(800);
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/runs-zh-light.png` });
    await world.state({ i18n: {} });
    assert.deepEqual(page.faults, []);
  });
});

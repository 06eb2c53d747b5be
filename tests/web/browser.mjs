/** A headless browser with ComfyUI's real page, served by stub.py. */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/usr/bin/google-chrome-stable"];
const READY_MS = 120_000;
const LATE_MS = 1500;
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];

/** What is needed, or why the tests cannot run. Named by the environment: PLAYWRIGHT_MODULES, FRONTEND, STUB_PYTHON, BROWSER. */
export function found() {
  const { PLAYWRIGHT_MODULES = HERE, FRONTEND = "", STUB_PYTHON = "python3", BROWSER } = process.env;
  const browser = BROWSER ?? BROWSERS.find((file) => existsSync(file));
  if (!browser) return "no Chromium; BROWSER names one";
  if (!existsSync(path.join(FRONTEND, "index.html"))) return "no frontend; FRONTEND names the package's static folder";
  try {
    const { chromium } = createRequire(path.join(PLAYWRIGHT_MODULES, "x.js"))("playwright-core");
    return { chromium, browser, frontend: FRONTEND, python: STUB_PYTHON };
  } catch {
    return "no playwright-core; PLAYWRIGHT_MODULES names the folder of its node_modules";
  }
}

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

/** The stub and a browser, both ended by close(). */
export class World {
  static async start(tools) {
    const world = new World();
    world.port = await freePort();
    world.stub = spawn(tools.python, [path.join(HERE, "stub.py"), tools.frontend, String(world.port)], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    world.base = `http://127.0.0.1:${world.port}`;
    await world._answers();
    world.browser = await tools.chromium.launch({ executablePath: tools.browser, args: ARGUMENTS });
    return world;
  }

  async _answers() {
    for (let i = 0; i < 200; i++) {
      if (await fetch(`${this.base}/stub/asked`).catch(() => null)) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("the stub does not answer");
  }

  async close() {
    await this.browser?.close();
    this.stub.kill();
  }

  _post(what, body) {
    return fetch(`${this.base}/stub/${what}`, { method: "POST", body: JSON.stringify(body) });
  }

  /** Events to all pages: [name, data] without "scion." */
  tell(...events) {
    return this._post(
      "tell",
      events.map(([name, data]) => ({ type: name.startsWith("execut") || name === "status" ? name : `scion.${name}`, data })),
    );
  }

  state(state) {
    return this._post("state", state);
  }

  drop() {
    return this._post("drop", {});
  }

  async asked() {
    return (await fetch(`${this.base}/stub/asked`)).json();
  }

  /** A page with the frontend ready and an empty graph; scripts that `late` names come after all others. */
  async page({ vue = false, theme = "dark", width = 1100, height = 900, locale = "en", density = 1, late = "" } = {}) {
    const page = await this.browser.newPage({ viewport: { width, height }, deviceScaleFactor: density });
    page.faults = [];
    page.on("pageerror", (error) => page.faults.push(error.stack ?? error.message));
    page.on("console", (message) => {
      if (message.type() === "error" && /extensions\/scion|scion/i.test(message.text() + message.location()?.url))
        page.faults.push(`${message.text()} ${message.location()?.url ?? ""}`);
    });
    page.on("dialog", (dialog) => dialog.accept().catch(() => {}));
    await page.route(
      (url) => url.hostname !== "127.0.0.1" && url.protocol.startsWith("http"),
      (route) => route.abort(),
    );
    await page.route(`**/extensions/scion/js/${late || "none"}`, async (route) => {
      await new Promise((resolve) => setTimeout(resolve, LATE_MS));
      return route.continue();
    });
    const own = {
      "Comfy.VueNodes.Enabled": vue,
      "Comfy.ColorPalette": theme,
      "Comfy.Locale": locale,
      "Comfy.Workflow.Persist": false,
    };
    await page.route(/\/api\/settings(\?|$)/, async (route) => {
      if (route.request().method() !== "GET") return route.fulfill({ status: 200, body: "" });
      return route.fulfill({ json: { ...(await (await route.fetch()).json()), ...own } });
    });
    await this.ready(page);
    return page;
  }

  async ready(page) {
    await page.goto(this.base, { waitUntil: "domcontentloaded" });
    await page.waitForFunction(
      () =>
        window.app?.isGraphReady &&
        window.app.vueAppReady &&
        window.app.canvas?.graph &&
        window.LiteGraph?.registered_node_types?.ScionTrainLoRA,
      null,
      { timeout: READY_MS, polling: 200 },
    );
    await page.waitForTimeout(500);
  }
}

/** A graph as JSON with training nodes of the given ids. */
export function workflow(ids, { id = "11111111-1111-4111-8111-111111111111", properties = {}, size = [420, 620] } = {}) {
  return {
    id,
    revision: 0,
    last_node_id: Math.max(...ids),
    last_link_id: 0,
    nodes: ids.map((node, index) => ({
      id: node,
      type: "ScionTrainLoRA",
      pos: [80 + index * (size[0] + 60), 120],
      size,
      flags: {},
      order: index,
      mode: 0,
      inputs: [],
      outputs: [],
      properties: { "Node name for S&R": "ScionTrainLoRA", ...properties[node] },
      widgets_values: ["lora", "resume", "refuse"],
    })),
    links: [],
    groups: [],
    config: {},
    extra: {},
    version: 0.4,
  };
}

export async function load(page, json) {
  await page.evaluate((json) => window.app.loadGraphData(json, true, false, "test"), json);
  await page.waitForTimeout(400);
}

// Run by itself, it says what is missing, if anything.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const tools = found();
  if (typeof tools === "string") console.log(tools);
}

/** The live panel on Train LoRA: each node shows the run that it trains, or the last one that it trained. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { Routes } from "./lib/api.js";
import { passOn } from "./lib/canvas.js";
import { styleSheet } from "./lib/dom.js";
import { addElement, hidePictures } from "./lib/host_view.js";
import { executionIds } from "./lib/place.js";
import { MIN_HEIGHT, RunPanel } from "./lib/run_panel.js";
import { RunStore } from "./lib/store.js";
import { count, loaded, t } from "./lib/text.js";
import { RUN } from "./lib/workflow.js";

const NODE = "ScionTrainLoRA";
const MIN_WIDTH = 380;
const TOAST_MS = 12_000;

export const routes = new Routes(api);
/** The one of the page. */
export const store = new RunStore(api, routes);

export function toast(severity, summary, detail) {
  app.extensionManager?.toast?.add({ severity, summary: `Scion · ${summary}`, detail, life: TOAST_MS });
}

function announce(view, what) {
  if (what === "failed") toast("error", t("failed"), t("saidFailed", { message: view.message }));
  if (what !== "finished") return;
  const values = { step: count(view.step), total: count(view.total), lora: view.lora ?? "" };
  if (view.status === "stopped") toast("warn", t("stopped"), t("saidStopped", values));
  else if (view.early) toast("success", t("finishedEarly"), t("saidEarly", values));
  // A run that was finished before is returned at once: that is no news.
  else if (view.trained) toast("success", t("finished"), t("saidFinished", values));
}

const rootGraph = () => app.rootGraph ?? app.graph;

/** Whether a view is this node's: of the run that it remembers, or at work under its id and in its workflow. */
async function isOf(node, view) {
  if (view.run && node.properties?.[RUN] === view.run) return true;
  if (!view.node || !executionIds(node, rootGraph()).includes(view.node)) return false;
  const workflow = await store.workflowOf(view.prompt);
  return workflow === null || !rootGraph().id || workflow === rootGraph().id;
}

function remember(node, view) {
  if (view.run && node.properties[RUN] !== view.run) node.properties[RUN] = view.run;
}

/** Joins a node and a panel: what the node trains now comes before what it trained. */
class Follower {
  constructor(node, panel) {
    this._node = node;
    this._panel = panel;
    this._turn = Promise.resolve();
    /** @type {(() => void)|null} */
    this._end = null;
  }

  /** The node is in a graph. One that is made only to be copied never is: it must not listen for ever. */
  added() {
    this._end ??= store.listen((view, what) => this._heard(view, what));
    this._panel.attach();
    this.begin();
  }

  removed() {
    this._end?.();
    this._end = null;
    this._panel.detach();
  }

  /**
   * The node's result is of this run. Where the host had it in its cache, no event told of it.
   * @param {unknown} run
   */
  ran(run) {
    if (typeof run !== "string" || !run) return;
    this._node.properties[RUN] = run;
    if (this._panel.view?.run !== run) this._panel.show(store.open(run));
  }

  /** What there is to show when the node is there, with its properties. */
  begin() {
    this.ran(this._node.properties?.[RUN]);
    for (const view of store.live()) this._heard(view, "joined");
  }

  /** One after the other: whose an event is has to be asked, and the latest event has the last word. */
  _heard(view, what) {
    this._turn = this._turn.then(() => this._follow(view, what));
  }

  async _follow(view, what) {
    if (!this._end) return;
    if (view !== this._panel.view) {
      if (what === "history" || !(await isOf(this._node, view)) || !this._end) return;
      this._panel.show(view);
    }
    remember(this._node, view);
    this._panel.update(what);
  }
}

function addPanel(node) {
  const panel = new RunPanel(
    routes,
    (text, severity) => toast(severity, t(severity === "error" ? "refused" : "goOn"), text),
    () => app.queuePrompt(0),
  );
  const follower = new Follower(node, panel);
  hidePictures(node);
  passOn(panel.root, app, ".scion-strip, .scion-message");
  addElement(node, "scion_panel", panel.root, MIN_HEIGHT);
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, MIN_WIDTH), Math.max(node.size[1], height)]);

  const { onConfigure, onExecuted, onRemoved, onAdded } = node;
  node.onConfigure = function (...given) {
    onConfigure?.apply(this, given);
    if (this.graph) follower.begin();
  };
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    follower.ran(output?.scion?.[0]?.run);
  };
  node.onAdded = function (...given) {
    onAdded?.apply(this, given);
    follower.added();
  };
  node.onRemoved = function (...given) {
    follower.removed();
    onRemoved?.apply(this, given);
  };
}

app.registerExtension({
  name: "scion.panel",
  beforeRegisterNodeDef(nodeType, definition) {
    if (definition.name !== NODE) return;
    const { clone } = nodeType.prototype;
    // A copy is another node: it has trained nothing yet.
    nodeType.prototype.clone = function (...given) {
      const copy = clone.apply(this, given);
      if (copy?.properties) delete copy.properties[RUN];
      return copy;
    };
  },
  async setup() {
    for (const name of ["base.css", "panel.css", "previews.css"]) styleSheet(name);
    store.listen(announce);
    await loaded(api, app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
    await store.start();
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) addPanel(node);
  },
});

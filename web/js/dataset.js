/** The dataset node shows the pictures of its folder, takes new ones, and lets their captions be written. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { Routes } from "./lib/api.js";
import { passOn } from "./lib/canvas.js";
import { styleSheet } from "./lib/dom.js";
import { addElement, hidePictures } from "./lib/host_view.js";
import { refreshLists } from "./lib/lists.js";
import { executionIds } from "./lib/place.js";
import { MIN_HEIGHT, Sheet } from "./lib/sheet.js";
import { loaded, t } from "./lib/text.js";
import { dropped, filesOf, proposed, sorted } from "./lib/upload.js";
import { UploadDialog } from "./lib/upload_dialog.js";

const NODE = "ScionLoadImageCaptionDataset";
const MIN_WIDTH = 380;
const TOAST_MS = 12_000;
/** Widgets that decide what the sheet shows, by the names that the server's route has for them. */
const SETTINGS = {
  caption_source: "captions",
  resolution: "resolution",
  buckets: "buckets",
  bucket_step: "bucket_step",
  width: "width",
  height: "height",
  skip_bad: "skip_bad",
};
/** A run is over, also one that was cancelled in the midst of checking. */
const ENDS = ["execution_success", "execution_error", "execution_interrupted", "reconnected"];
const WATCHED = ["folder", "missing_captions", "default_caption", "crop", ...Object.keys(SETTINGS)];

const routes = new Routes(api);
/** Of the nodes that are in a graph. @type {Map<any, Sheet>} */
const sheets = new Map();

function toast(message) {
  app.extensionManager?.toast?.add({ severity: "warn", summary: "Scion", detail: message, life: TOAST_MS });
}

const words = () => loaded(api, app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);
const isLinked = (node, name) => node.inputs?.some((input) => input.name === name && input.link != null) ?? false;

/**
 * What a node's widgets ask for.
 * @returns {import("./lib/sheet.js").Asked}
 */
function asked(node) {
  const value = (name) => (isLinked(node, name) ? undefined : widgetOf(node, name)?.value);
  const needed = value("missing_captions") === "error" && !value("default_caption");
  const centred = value("crop") === "center";
  const none = (why) => ({ look: null, why, needed, centred });
  if (isLinked(node, "images")) return none("wired");
  if (isLinked(node, "folder")) return none("linked");
  const name = value("folder");
  if (typeof name !== "string" || !name) return none("none");
  /** @type {Record<string, string|number>} */
  const settings = {};
  for (const [widget, called] of Object.entries(SETTINGS)) {
    const set = value(widget);
    if (set !== undefined && set !== null) settings[called] = typeof set === "boolean" ? Number(set) : set;
  }
  // One side alone says nothing, where a wire gives the other.
  if (isLinked(node, "width") || isLinked(node, "height")) settings.width = settings.height = 0;
  return { look: { name, settings }, why: "", needed, centred };
}

/** The names that the folder's list has. */
function names(node) {
  const { values } = widgetOf(node, "folder")?.options ?? {};
  return typeof values === "function" ? values() : (values ?? []);
}

async function choose(node, name) {
  await refreshLists(app);
  const widget = widgetOf(node, "folder");
  if (!widget || widget.value === name || isLinked(node, "folder") || !names(node).includes(name)) return;
  widget.value = name;
  widget.callback?.(name);
}

function upload(node, sheet, files, folder = "") {
  if (!sorted(files).taken.length) return toast(t("sheet.nothingUsable"));
  const here = sheet.page?.in_input && !folder ? asked(node).look?.name : null;
  const dialog = new UploadDialog({
    routes,
    files,
    name: here ?? proposed(folder, names(node)),
    names: names(node),
    done: async (name) => {
      await choose(node, name);
      sheet.refresh();
    },
  });
  return dialog.open();
}

/** Files that are dropped on the node are its own; a workflow among them would otherwise be opened. */
function takeDrops(node, sheet) {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const wanted = (event) => hasFiles(event) && !isLinked(node, "images") && !isLinked(node, "folder");
  const take = async (event) => {
    const drop = dropped(event.dataTransfer);
    const folders = drop.entries.some((entry) => entry.isDirectory);
    const { files, folder } = await filesOf(drop);
    if (!folders && !sorted(files).taken.length) return false;
    upload(node, sheet, files, folder);
    return true;
  };
  const { onDragOver, onDragDrop } = node;
  node.onDragOver = function (event) {
    return wanted(event) || (onDragOver?.call(this, event) ?? false);
  };
  node.onDragDrop = function (event) {
    return wanted(event) ? take(event) : (onDragDrop?.call(this, event) ?? false);
  };
  const over = (event, on) => {
    // Nodes 2.0 hears it by itself; the canvas does not hear what happens above a widget.
    if (globalThis.LiteGraph?.vueNodesMode || !wanted(event)) return false;
    event.preventDefault();
    event.stopPropagation();
    sheet.root.classList.toggle("scion-over", on);
    return true;
  };
  sheet.root.addEventListener("dragover", (event) => over(event, true));
  sheet.root.addEventListener("dragleave", (event) => over(event, false));
  sheet.root.addEventListener("drop", async (event) => {
    if (over(event, false) && !(await take(event))) toast(t("sheet.nothingUsable"));
  });
}

function watch(node, sheet) {
  const changed = () => {
    // A run's contact sheet would be a second one; where no folder is read it is the only one.
    hidePictures(node, !isLinked(node, "images"));
    sheet.changed();
  };
  for (const widget of node.widgets.filter((one) => WATCHED.includes(one.name))) {
    const { callback } = widget;
    widget.callback = function (...given) {
      const answer = callback?.apply(this, given);
      changed();
      return answer;
    };
  }
  const { onConfigure, onConnectionsChange, onAdded, onRemoved } = node;
  const after = (before, act) =>
    function (...given) {
      const answer = before?.apply(this, given);
      act();
      return answer;
    };
  node.onConfigure = after(onConfigure, changed);
  node.onConnectionsChange = after(onConnectionsChange, changed);
  node.onAdded = after(onAdded, () => {
    sheets.set(node, sheet);
    sheet.attach();
    changed();
    words().then(() => sheet.render());
  });
  node.onRemoved = after(onRemoved, () => {
    sheets.delete(node);
    sheet.detach();
  });
}

function addSheet(node) {
  const sheet = new Sheet({ routes, asked: () => asked(node), add: (files) => upload(node, sheet, files) });
  passOn(sheet.root, app, ".scion-grid, .scion-message");
  addElement(node, "scion_sheet", sheet.root, MIN_HEIGHT);
  takeDrops(node, sheet);
  watch(node, sheet);
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, MIN_WIDTH), Math.max(node.size[1], height)]);
}

/** The server checks the pictures of a node, or has done so. */
function checking({ node: id, done, total }) {
  for (const [node, sheet] of sheets) {
    if (executionIds(node, app.rootGraph ?? app.graph).includes(id)) sheet.checks(done < total ? { done, total } : null);
  }
}

function hear() {
  api.addEventListener("scion.checking", (/** @type {any} */ event) => checking(event.detail));
  const over = () => {
    for (const sheet of sheets.values()) sheet.checks(null);
  };
  for (const end of ENDS) api.addEventListener(end, over);
}

app.registerExtension({
  name: "scion.dataset",
  setup() {
    for (const name of ["base.css", "dataset.css", "caption.css"]) styleSheet(name);
    hear();
    return words();
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) addSheet(node);
  },
});

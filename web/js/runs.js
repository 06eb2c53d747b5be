/** The sidebar tab with every training run: what became of it, going on with it, deleting it, comparing it. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { PreviewDialog } from "./lib/compare.js";
import { CompareRuns } from "./lib/compare_runs.js";
import { styleSheet } from "./lib/dom.js";
import { loraPath } from "./lib/run_card.js";
import { RunList } from "./lib/run_list.js";
import { bytes, count, loaded, t } from "./lib/text.js";
import { resuming, sameWork } from "./lib/workflow.js";
import { routes, store, toast } from "./panel.js";

const TAB = "scion-runs";
const COMPARED_POINTS = 2000;

/** Shows what went wrong with a button's wish. */
const said =
  (act) =>
  async (...given) => {
    try {
      return await act(...given);
    } catch (error) {
      toast("error", t("runsHeading"), error.message);
    }
  };

async function openPreviews(row) {
  const { previews } = await routes.history(row.run, 1);
  const shown = previews.find((one) => one.name === row.preview) ?? previews.at(-1);
  if (shown) new PreviewDialog({ previews }, shown, (name) => routes.preview(row.run, name, null));
  else toast("warn", row.name, t("runsPreviewGone"));
}

/** Opens the workflow of a run in a tab of its own, unless the open one does the same. */
async function openWorkflow(row) {
  const workflow = resuming(await routes.workflow(row.run), row.run);
  if (sameWork((app.rootGraph ?? app.graph).serialize(), workflow)) return;
  await app.loadGraphData(workflow, true, true, row.run);
}

/** @returns {Promise<boolean>} whether it is queued */
async function goOn(row) {
  await openWorkflow(row);
  await routes.goOn(row.run);
  await store.changed(row.run);
  const queued = await app.queuePrompt(0);
  if (queued) toast("info", row.name, t("runsQueued", { name: row.name, step: count(row.step) }));
  else toast("warn", row.name, t("runsNotQueued", { name: row.name }));
  await list.load();
  return queued;
}

async function remove(row) {
  const message = t("runsDeleteAsk", { name: row.name, bytes: bytes(row.bytes) });
  const agreed = await app.extensionManager.dialog.confirm({
    title: t("runsDelete"),
    message,
    type: "delete",
    itemList: [row.run],
  });
  if (!agreed) return;
  const freed = await routes.delete(row.run);
  toast("success", row.name, t("runsDeleted", { name: row.name, bytes: bytes(freed.bytes) }));
  await Promise.all([store.changed(row.run), list.load()]);
}

async function copyPath(row) {
  const path = loraPath(row);
  try {
    await navigator.clipboard.writeText(path);
    toast("success", row.name, t("runsCopied", { path }));
  } catch {
    toast("warn", row.name, t("runsNotCopied", { path }));
  }
}

async function compare(rows) {
  const histories = Promise.all(rows.map((row) => routes.history(row.run, COMPARED_POINTS, true)));
  const { settings } = await routes.widgets();
  new CompareRuns(rows, await histories, settings);
}

const acts = { preview: openPreviews, goOn, open: openWorkflow, copy: copyPath, delete: remove };
/** @type {RunList} */
let list;

app.registerExtension({
  name: "scion.runs",
  async setup() {
    for (const name of ["base.css", "runs.css", "previews.css"]) styleSheet(name);
    await loaded(api, app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
    const told = /** @type {any} */ (Object.fromEntries(Object.entries(acts).map(([name, act]) => [name, said(act)])));
    list = new RunList(routes, store, told, said(compare));
    api.addEventListener("status", (event) => {
      // Without a status the connection was lost: what is queued is not known then.
      const status = /** @type {CustomEvent} */ (event).detail;
      if (status) list.heardQueue(status.exec_info.queue_remaining);
    });
    app.extensionManager.registerSidebarTab({
      id: TAB,
      type: "custom",
      icon: "pi pi-chart-line",
      title: t("runsTitle"),
      tooltip: t("runsTip"),
      render(container) {
        // The host calls this whenever it draws the sidebar anew.
        if (list.root.parentElement !== container) container.replaceChildren(list.root);
        list.attach();
      },
      destroy() {
        list.detach();
        list.root.remove();
      },
    });
  },
});

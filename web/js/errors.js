/** A node of ours that fails says why at once; the host's notice names the node alone. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { toast } from "./panel.js";

const PREFIX = "Scion";
/** It tells of its run by itself. */
const TRAIN = "ScionTrainLoRA";
const LINES_MOST = 6;

/** A dataset may have a thousand problems; the host's own view has them all. */
function few(message) {
  const lines = message.trim().split("\n");
  return [...lines.slice(0, LINES_MOST), ...(lines.length > LINES_MOST ? ["…"] : [])].join("\n");
}

function told({ node_type: type, exception_message: message }) {
  if (!type?.startsWith(PREFIX) || type === TRAIN || !message) return;
  toast("error", globalThis.LiteGraph?.registered_node_types?.[type]?.title ?? type, few(message));
}

app.registerExtension({
  name: "scion.errors",
  setup() {
    api.addEventListener("execution_error", (/** @type {any} */ event) => told(event.detail));
  },
});

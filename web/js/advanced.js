/**
 * Advanced settings fold away. Nodes 2.0 does so by itself, but sizes a node as if all were shown; the classic renderer
 * shows them all. What the canvas is told to hide here, Nodes 2.0 still offers under "Show advanced inputs".
 */

import { app } from "../../../scripts/app.js";

const PREFIX = "Scion";

const isAdvanced = (widget) => Boolean(widget.options?.advanced);

/** What a person has given the node beyond its least height stays. */
function fold(node, hidden) {
  const [, before] = node.computeSize();
  for (const widget of node.widgets.filter(isAdvanced)) widget.hidden = hidden;
  const [, least] = node.computeSize();
  node.setSize([node.size[0], Math.max(least, node.size[1] + least - before)]);
  node.setDirtyCanvas(true, true);
}

function addToggle(node) {
  const folded = "▸ advanced";
  const unfolded = "▾ advanced";
  const toggle = node.addWidget("button", folded, null, () => {
    const open = toggle.name === unfolded;
    toggle.name = open ? folded : unfolded;
    fold(node, open);
  });
  // It is no setting: neither saved with the workflow, nor shown where the renderer has its own.
  toggle.serialize = false;
  toggle.options.serialize = false;
  toggle.options.canvasOnly = true;
  // Right behind the settings, before the pack's own parts of the node: which of our scripts comes first is chance.
  node.widgets.splice(node.widgets.indexOf(toggle), 1);
  node.widgets.splice(node.widgets.findLastIndex((widget) => widget.serialize !== false) + 1, 0, toggle);
}

app.registerExtension({
  name: "scion.advanced",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX) || !node.widgets?.some(isAdvanced)) return;
    addToggle(node);
    fold(node, true);
  },
});

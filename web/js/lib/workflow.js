/** A run's workflow, as it was kept with the run, made ready to go on with the run. */

const NODE = "ScionTrainLoRA";
/** Property of a node that tells which run it shows: saved with the workflow, so that it finds it after a restart. */
export const RUN = "scion_run";
/** Place of the widget `existing` among the node's; places never change, for workflows are saved by them. */
const EXISTING = 1;
/** What it may be for a run to go on; others begin another run beside it, or refuse. */
const GOES_ON = ["resume", "continue"];

/** All nodes, those of subgraphs too. */
function* nodesOf(workflow) {
  yield* workflow.nodes ?? [];
  for (const subgraph of workflow.definitions?.subgraphs ?? []) yield* subgraph.nodes ?? [];
}

/**
 * A copy whose training nodes go on with the run; where there is but one, it shows the run from the beginning.
 * @param {any} workflow
 * @param {string} run
 * @returns {any}
 */
export function resuming(workflow, run) {
  const copy = structuredClone(workflow);
  const training = [...nodesOf(copy)].filter((node) => node.type === NODE);
  for (const node of training) {
    const values = node.widgets_values;
    if (Array.isArray(values) && !GOES_ON.includes(values[EXISTING])) values[EXISTING] = GOES_ON[0];
  }
  if (training.length === 1) training[0].properties = { ...training[0].properties, [RUN]: run };
  return copy;
}

/** What of a workflow decides what is executed; where its nodes lie does not. */
function work(workflow) {
  const nodes = [...nodesOf(workflow)].map((node) => [node.id, node.type, node.mode ?? 0, node.widgets_values ?? []]);
  nodes.sort((a, b) => String(a[0]).localeCompare(String(b[0])) || String(a[1]).localeCompare(String(b[1])));
  const ends = (link) => (Array.isArray(link) ? link.slice(0, 5) : Object.values(link));
  const links = [workflow, ...(workflow.definitions?.subgraphs ?? [])].map((graph) => (graph.links ?? []).map(ends).sort());
  return JSON.stringify([nodes, links]);
}

/** Whether two workflows do the same. */
export function sameWork(one, other) {
  return work(one) === work(other);
}

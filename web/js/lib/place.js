/** Where nodes lie: the ids under which the server executes a node, also inside subgraphs. */

/**
 * A node of a subgraph is executed once for each place that the subgraph is used in: "12:5" is node 5 in node 12.
 * @param {any} node
 * @param {any} root the workflow's outermost graph
 * @returns {string[]}
 */
export function executionIds(node, root) {
  /** @type {string[]} */
  const found = [];
  const walk = (graph, before) => {
    if (graph === node.graph) found.push(before + node.id);
    for (const other of graph.nodes ?? []) if (other.subgraph) walk(other.subgraph, `${before}${other.id}:`);
  };
  if (root && node.graph) walk(root, "");
  return found;
}

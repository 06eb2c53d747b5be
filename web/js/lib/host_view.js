/** What the host draws on a node by itself, where the node shows it in its own way. */

/**
 * The pictures of a node's output stay in the host's gallery, but not a second time on the node.
 * @param {any} node
 */
export function hidePictures(node) {
  // Nodes 2.0 asks the first; the classic renderer makes its picture widget in the second.
  node.hideOutputImages = true;
  node.onDrawBackground = () => {};
}

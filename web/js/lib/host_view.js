/** What the host draws on a node by itself, where the node shows it in its own way. */

/** The widget in which the classic renderer shows a node's pictures. */
const PICTURES = "$$canvas-image-preview";

/**
 * The pictures of a node's output stay in the host's gallery, but not a second time on the node.
 * @param {any} node
 * @param {boolean} [hidden] whether the node shows them in its own way now
 */
export function hidePictures(node, hidden = true) {
  // Nodes 2.0 asks the first; the classic renderer makes its picture widget in the second.
  node.hideOutputImages = hidden;
  if (!hidden) {
    delete node.onDrawBackground;
    return;
  }
  node.onDrawBackground = () => {};
  const made = node.widgets?.find((widget) => widget.name === PICTURES);
  if (made) node.removeWidget?.(made);
}

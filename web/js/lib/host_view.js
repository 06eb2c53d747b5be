/** How the host shows a node: an element of ours on it, and what it would draw there by itself. */

/** What the classic renderer leaves free above and below an element, in pixels. */
const WIDGET_MARGIN = 10;

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

/**
 * Puts an element on a node, below its widgets. It is no setting: neither saved with the workflow nor sent.
 * @param {any} node
 * @param {string} name
 * @param {HTMLElement} root
 * @param {number} height least, in pixels; Nodes 2.0 asks the element's style for it
 */
export function addElement(node, name, root, height) {
  const widget = node.addDOMWidget(name, name, root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => height + 2 * WIDGET_MARGIN,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false;
  return widget;
}

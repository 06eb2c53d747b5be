/** What happens above a widget and is meant for the graph below it. */

/**
 * The graph is moved and scaled also from above a widget; what can be scrolled there scrolls.
 * @param {HTMLElement} root of the widget
 * @param {any} app the host's
 * @param {string} scrollers CSS selector of what can be scrolled
 */
export function passOn(root, app, scrollers) {
  root.addEventListener(
    "wheel",
    (event) => {
      const within = !event.ctrlKey && /** @type {Element} */ (event.target).closest?.(scrollers);
      const scrolls = within && (within.scrollWidth > within.clientWidth || within.scrollHeight > within.clientHeight);
      // Nodes 2.0 hears what bubbles up by itself.
      if (scrolls) event.stopPropagation();
      else if (!globalThis.LiteGraph?.vueNodesMode) {
        event.preventDefault();
        app.canvas.processMouseWheel(event);
      }
    },
    { passive: false },
  );
  const middle = (name) => (event) => {
    if (globalThis.LiteGraph?.vueNodesMode) return;
    if (event.button === 1 || event.buttons & 4) app.canvas[name](event);
  };
  root.addEventListener("pointerdown", middle("processMouseDown"));
  root.addEventListener("pointermove", middle("processMouseMove"));
  root.addEventListener("pointerup", middle("processMouseUp"));
}

/** A grid of any number of cells, of which only those near what is seen are elements. */

import { element } from "./dom.js";
import { CELL, columnsIn, moved, placeOf, windowOf } from "./window.js";

export class Grid {
  /**
   * @param {object} given
   * @param {(cell: any) => void} given.make puts into a new cell what all have
   * @param {(cell: any, index: number) => void} given.fill shows an item in it
   * @param {(cell: any) => void} given.leave it is no longer seen
   * @param {(index: number) => void} given.open Enter or a click on it
   * @param {(first: number, last: number) => void} given.seen which cells there are now
   */
  constructor(given) {
    this._given = given;
    this.count = 0;
    this._current = 0;
    this._frame = 0;
    /** @type {Map<number, any>} */
    this._cells = new Map();
    this._spare = [];
    this._space = element("div.scion-grid-space", { role: "presentation" });
    this.root = element(
      "div.scion-grid",
      {
        role: "listbox",
        on: {
          scroll: () => this.update(),
          keydown: (event) => this._key(event),
          focusin: (event) => this._focused(event.target),
          // Nodes 2.0 would drag the node.
          pointerdown: (event) => event.button !== 1 && event.stopPropagation(),
        },
      },
      this._space,
    );
    this._resized = new ResizeObserver(() => this.update());
  }

  attach() {
    this._resized.observe(this.root);
  }

  detach() {
    this._resized.disconnect();
    cancelAnimationFrame(this._frame);
    this._frame = 0;
  }

  /** @param {number} count of cells; the place in the list stays */
  resize(count) {
    this.count = count;
    this._current = Math.min(this._current, Math.max(0, count - 1));
    this.update();
  }

  /** Another list, from its beginning. */
  restart() {
    this._current = 0;
    this.root.scrollTop = 0;
    this.resize(0);
  }

  /** Draws with the next frame. */
  update() {
    this._frame ||= requestAnimationFrame(() => {
      this._frame = 0;
      this._draw();
    });
  }

  /** @param {number} index of a cell whose item has changed */
  refill(index) {
    const cell = this._cells.get(index);
    if (cell) this._given.fill(cell, index);
  }

  /** @param {number} index */
  focus(index) {
    this._current = index;
    const { top } = placeOf(index, columnsIn(this._space.clientWidth), this._space.clientWidth);
    const below = top + CELL.height - this.root.clientHeight;
    this.root.scrollTop = Math.min(top, Math.max(below, this.root.scrollTop));
    this._draw();
    this._cells.get(index)?.focus({ preventScroll: true });
  }

  _draw() {
    const { clientWidth: width } = this._space;
    const { scrollTop: top, clientHeight: height } = this.root;
    if (!width || !height) return;
    const { columns, whole, first, last } = windowOf({ top, height, width, count: this.count });
    this._space.style.height = `${whole}px`;
    const wanted = new Set(Array.from({ length: last - first }, (_, i) => first + i));
    // The cell that the keyboard is at stays, so that the focus does.
    if (this._current < this.count) wanted.add(this._current);
    for (const [index, cell] of this._cells) {
      if (wanted.has(index)) continue;
      this._given.leave(cell);
      cell.remove();
      this._cells.delete(index);
      this._spare.push(cell);
    }
    for (const index of wanted) this._place(index, columns, width);
    this._given.seen(first, last);
  }

  _place(index, columns, width) {
    let cell = this._cells.get(index);
    if (!cell) {
      cell = this._spare.pop() ?? this._make();
      this._cells.set(index, cell);
      cell.dataset.index = index;
      this._space.append(cell);
    }
    const here = index === this._current;
    const state = [index, columns, width, this.count, here].join();
    // Nothing is laid out anew for what only scrolls.
    if (cell.dataset.state !== state) {
      cell.dataset.state = state;
      const place = placeOf(index, columns, width);
      cell.style.cssText = `transform: translate(${place.left}px, ${place.top}px); width: ${place.width}px; height: ${CELL.height}px`;
      cell.tabIndex = here ? 0 : -1;
      cell.setAttribute("aria-posinset", String(index + 1));
      cell.setAttribute("aria-setsize", String(this.count));
      cell.setAttribute("aria-selected", String(here));
    }
    this._given.fill(cell, index);
  }

  _make() {
    const cell = element("div.scion-cell", {
      role: "option",
      on: {
        click: () => this._given.open(Number(cell.dataset.index)),
      },
    });
    this._given.make(cell);
    return cell;
  }

  /** Wherever the focus came from. */
  _focused(cell) {
    const index = Number(cell.dataset?.index);
    if (!Number.isInteger(index) || index === this._current) return;
    this._current = index;
    this.update();
  }

  _key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.count) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this._given.open(this._current);
      return;
    }
    const rows = Math.max(1, Math.floor(this.root.clientHeight / (CELL.height + CELL.gap)));
    const to = moved(event.key, this._current, columnsIn(this._space.clientWidth), rows, this.count);
    if (to === null) return;
    event.preventDefault();
    this.focus(to);
  }
}

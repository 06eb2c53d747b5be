/** Where the cells of a long grid lie, and which of them are near what is seen. */

/** In pixels, unscaled. */
export const CELL = { width: 104, height: 158, gap: 6 };
/** So many rows are kept above and below what is seen. */
const MORE = 2;

/** @param {number} width of the grid, in pixels */
export function columnsIn(width) {
  return Math.max(1, Math.floor((width + CELL.gap) / (CELL.width + CELL.gap)));
}

/**
 * @param {{top: number, height: number, width: number, count: number}} seen the scrolled place, the grid's size, its cells
 * @returns {{columns: number, whole: number, first: number, last: number}} pixels of all rows; cells from first to before last
 */
export function windowOf({ top, height, width, count }) {
  const columns = columnsIn(width);
  const row = CELL.height + CELL.gap;
  const rows = Math.ceil(count / columns);
  const above = Math.max(0, Math.floor(top / row) - MORE);
  const below = Math.min(rows, Math.ceil((top + height) / row) + MORE);
  return {
    columns,
    whole: Math.max(0, rows * row - CELL.gap),
    first: Math.min(above * columns, count),
    last: Math.min(below * columns, count),
  };
}

/**
 * @param {number} index of a cell
 * @param {number} columns
 * @param {number} width of the grid, in pixels
 * @returns {{left: number, top: number, width: number}} in pixels
 */
export function placeOf(index, columns, width) {
  const across = (width - (columns - 1) * CELL.gap) / columns;
  return {
    left: (index % columns) * (across + CELL.gap),
    top: Math.floor(index / columns) * (CELL.height + CELL.gap),
    width: across,
  };
}

/**
 * @param {string} key of the keyboard
 * @param {number} index of the cell that has the focus
 * @param {number} columns
 * @param {number} page rows that are seen at once
 * @param {number} count
 * @returns {number|null} the cell that gets the focus; null for a key that moves nothing
 */
export function moved(key, index, columns, page, count) {
  const by = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -columns,
    ArrowDown: columns,
    PageUp: -columns * page,
    PageDown: columns * page,
    Home: -index,
    End: count - 1 - index,
  }[key];
  if (by === undefined || !count) return null;
  const to = index + by;
  if (to >= 0 && to < count) return to;
  if (key.startsWith("Page")) return to < 0 ? 0 : count - 1;
  // Down from the row before a last, shorter one.
  if (key === "ArrowDown" && Math.floor(index / columns) < Math.floor((count - 1) / columns)) return count - 1;
  return index;
}

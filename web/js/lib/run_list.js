/** The sidebar's list of all runs. It follows what trains, and asks the server anew when a run begins, ends or is deleted. */

import { MOST } from "./comparison.js";
import { element, setText, show } from "./dom.js";
import { RunCard } from "./run_card.js";
import { count, t } from "./text.js";

/** So many can be overlooked without a search. */
const FEW = 8;
/** Pixels, for screens of double density. */
const PICTURE_HEIGHT = 128;
/** What happens together is asked for once. */
const SOON_MS = 300;
/** After these the server tells something new of a run, or of another one. */
const NEWS = ["started", "preview", "finished", "failed", "ended", "gone", "joined"];

export class RunList {
  /**
   * @param {import("./api.js").Routes} routes
   * @param {import("./store.js").RunStore} store
   * @param {Omit<import("./run_card.js").Acts, "selected">} acts
   * @param {(rows: import("../types").Listed[]) => void} compare
   */
  constructor(routes, store, acts, compare) {
    this._routes = routes;
    this._store = store;
    this._acts = { ...acts, selected: () => this._renderCompare() };
    this._compare = compare;
    /** @type {Map<string, RunCard>} */
    this._cards = new Map();
    /** @type {string} */ this._error = "";
    this._loaded = false;
    this._timer = 0;
    /** The last answer that was asked for; an earlier one that comes late is no news. */
    this._asked = 0;
    /** @type {(() => void)|null} */
    this._end = null;
    this._build();
  }

  _build() {
    this._search = element("input.scion-search", { type: "search", on: { input: () => this._filter() } });
    this._again = element("button.scion-button", { type: "button", on: { click: () => this.load() } });
    this._note = element("p.scion-note", { role: "status" });
    this._list = element("ul.scion-run-list");
    this._compareButton = element("button.scion-button", { type: "button", on: { click: () => this._onCompare() } });
    this._count = element("span.scion-space");
    this._reload = element("button.scion-button", { type: "button", text: "⟳", on: { click: () => this.load() } });
    this._heading = element("h2");
    this._tools = element("div.scion-tools", {}, this._count, this._compareButton, this._reload);
    this.root = element(
      "div.scion.scion-runs",
      { on: { keydown: (event) => event.stopPropagation() } },
      this._heading,
      this._tools,
      this._search,
      this._note,
      this._again,
      this._list,
    );
  }

  /** It is shown: from now on it follows. */
  attach() {
    if (this._end) return;
    this._end = this._store.listen((view, what) => this._heard(view, what));
    this.load();
  }

  detach() {
    this._end?.();
    this._end = null;
    clearTimeout(this._timer);
    this._timer = 0;
  }

  _heard(view, what) {
    if (view.run && what !== "history") this._cards.get(view.run)?.follow(view);
    if (!NEWS.includes(what)) return;
    this._timer ||= setTimeout(() => {
      this._timer = 0;
      this.load();
    }, SOON_MS);
  }

  /** @param {number} remaining prompts in the host's queue */
  heardQueue(remaining) {
    for (const card of this._cards.values()) card.heardQueue(remaining);
  }

  async load() {
    const asked = ++this._asked;
    this._render();
    try {
      const rows = await this._routes.runs();
      if (asked !== this._asked) return;
      this._error = "";
      this._show(rows);
    } catch (error) {
      if (asked !== this._asked) return;
      this._error = error.message;
    }
    this._loaded = true;
    this._render();
  }

  /** Cards stay where they are, with the focus and the selection. */
  _show(rows) {
    const known = new Set(rows.map((row) => row.run));
    for (const [run, card] of this._cards) {
      if (known.has(run)) continue;
      card.root.remove();
      this._cards.delete(run);
    }
    let before = null;
    for (const row of rows) {
      const card = this._cardOf(row);
      const place = before ? before.nextSibling : this._list.firstChild;
      if (place !== card.root) this._list.insertBefore(card.root, place);
      before = card.root;
      // What is compared is in the order of the list, too.
      this._cards.delete(row.run);
      this._cards.set(row.run, card);
    }
    for (const view of this._store.live()) if (view.run) this._cards.get(view.run)?.follow(view);
  }

  /** The run's card, with what the server says of it now. */
  _cardOf(row) {
    const known = this._cards.get(row.run);
    known?.update(row);
    if (known) return known;
    const made = new RunCard(row, this._acts, ({ run, preview }) => this._routes.preview(run, preview, null, PICTURE_HEIGHT));
    this._cards.set(row.run, made);
    return made;
  }

  _render() {
    const some = this._cards.size > 0;
    setText(this._heading, t("runsHeading"));
    show(this._again, Boolean(this._error));
    setText(this._again, t("runsAgain"));
    show(this._tools, some);
    setText(this._count, t("runsCount", { count: count(this._cards.size) }));
    this._reload.title = t("runsReload");
    this._reload.setAttribute("aria-label", t("runsReload"));
    this._list.setAttribute("aria-label", t("runsList"));
    this._search.setAttribute("aria-label", t("runsSearch"));
    this._search.placeholder = t("runsSearch");
    show(this._search, this._cards.size > FEW);
    this._filter();
    this._renderCompare();
  }

  _filter() {
    const wanted = this._cards.size > FEW ? this._search.value.trim().toLowerCase() : "";
    let found = 0;
    for (const { root, row } of this._cards.values()) {
      const fits = `${row.name} ${row.run}`.toLowerCase().includes(wanted);
      show(root, fits);
      found += Number(fits);
    }
    const note = this._noteOf(found);
    setText(this._note, note);
    show(this._note, Boolean(note));
  }

  /** What there is to say instead of, or above, the runs. */
  _noteOf(found) {
    if (this._error) return t("runsFailed", { message: this._error });
    if (!this._loaded) return t("runsLoading");
    if (!this._cards.size) return t("runsNone");
    return found ? "" : t("runsNoneFound");
  }

  get _selected() {
    return [...this._cards.values()].filter((card) => card.selected);
  }

  _renderCompare() {
    const { length } = this._selected;
    const enough = length >= 2 && length <= MOST;
    setText(this._compareButton, length ? t("runsCompareCount", { count: length }) : t("runsCompare"));
    this._compareButton.setAttribute("aria-disabled", String(!enough));
    this._compareButton.title = enough ? "" : t("runsCompareHint");
  }

  _onCompare() {
    if (this._compareButton.getAttribute("aria-disabled") !== "true") this._compare(this._selected.map((card) => card.row));
  }
}

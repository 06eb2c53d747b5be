/** The contact sheet of a dataset, inside its node: counts, a filter, and every picture with its caption. */

import { CaptionEditor, drafts } from "./caption_editor.js";
import { toolButton } from "./dialog.js";
import { element, setText, show } from "./dom.js";
import { Grid } from "./grid.js";
import { Pages } from "./pages.js";
import { bucketOf, problemOf, summary, warning } from "./sheet_words.js";
import { count, t } from "./text.js";
import { Thumbnails } from "./thumbnails.js";

export const MIN_HEIGHT = 270;
const SIDE = 192;
const SETTLE_MS = 250;
/** Between two questions that let the server open further pictures; where none was opened meanwhile, or nobody looks. */
const AHEAD_MS = 800;
const IDLE_MS = 10_000;

/** What a node's widgets say: a dataset to look at, or the word for why there is none. */
/** @typedef {{look: import("../types").Look|null, why: string, needed: boolean, centred: boolean}} Asked */

export class Sheet {
  /**
   * @param {object} given
   * @param {import("./api.js").Routes} given.routes
   * @param {() => Asked} given.asked
   * @param {(files: File[]) => void} given.add somebody chose files to be added
   */
  constructor({ routes, asked, add }) {
    this._routes = routes;
    this._asked = asked;
    this._add = add;
    this._attached = false;
    this._error = null;
    /** @type {{done: number, total: number}|null} */
    this._checks = null;
    this._version = 0;
    this._timers = { settle: 0, ahead: 0 };
    this._fresh = false;
    /** @type {import("../types").ItemsPage|null} */
    this.page = null;
    /** @type {Asked} */
    this._now = { look: null, why: "none", needed: true, centred: true };
    /** @type {CaptionEditor|null} */
    this._editor = null;
    this._thumbnails = new Thumbnails();
    this.pages = new Pages((offset, limit) => this._load(offset, limit), this._heard.bind(this));
    this._grid = new Grid({
      make: (cell) => this._make(cell),
      fill: (cell, index) => this._fill(cell, index),
      leave: (cell) => this._leave(cell),
      open: (index) => this._open(index),
      seen: (first, last) => this._now.look && this.pages.need(first, last),
    });
    this.root = this._build();
    this.render();
  }

  // ---- its life

  attach() {
    this._attached = true;
    this._grid.attach();
    this.changed();
  }

  detach() {
    this._attached = false;
    this._grid.detach();
    for (const timer of Object.values(this._timers)) clearTimeout(timer);
  }

  /** Some widget may say something else; asked at once, or when whoever types has done so. */
  changed() {
    clearTimeout(this._timers.settle);
    this._timers.settle = setTimeout(() => this._settle(), SETTLE_MS);
  }

  _settle() {
    if (!this._attached) return;
    const [before, now] = [this._now, this._asked()];
    this._now = now;
    if (JSON.stringify(before.look) !== JSON.stringify(now.look)) this._begin(before.look?.name !== now.look?.name);
    this.render();
  }

  _begin(other) {
    this._error = null;
    if (other) {
      this.page = null;
      this._clear();
    } else this.pages.renew();
    if (this._now.look) this.pages.need(0, 1);
    this._grid.update();
  }

  _clear() {
    this.pages.clear();
    this._grid.restart();
  }

  /** The files may have changed. */
  refresh() {
    this._version++;
    this._fresh = true;
    const before = this._now.look?.name;
    this._now = this._asked();
    this._begin(before !== this._now.look?.name);
    this.render();
  }

  /** @param {{done: number, total: number}|null} checks how far a run has checked the pictures; null: it does not */
  checks(checks) {
    if (checks === this._checks) return;
    this._checks = checks;
    this.render();
  }

  // ---- what is loaded

  _load(offset, limit) {
    const fresh = this._fresh;
    this._fresh = false;
    const wanted = { offset, limit, only: this._only.value, q: this._search.value.trim() };
    return this._routes.items(/** @type {import("../types").Look} */ (this._now.look), fresh ? { ...wanted, fresh: 1 } : wanted);
  }

  _heard(page, error) {
    this._error = error;
    if (page) {
      this.page = page;
      this._lookAhead(AHEAD_MS);
    }
    this._grid.resize(error ? 0 : this.pages.matching);
    this._editor?.render();
    this.render();
  }

  /** The server opens further pictures as long as somebody looks, so that problems and buckets are those of all. */
  _lookAhead(wait) {
    clearTimeout(this._timers.ahead);
    if (!this.page || this.page.checked >= this.page.count) return;
    this._timers.ahead = setTimeout(() => this._ahead(), wait);
  }

  async _ahead() {
    const { page, _now: now } = this;
    if (!page || !now.look || !this._attached) return;
    if (document.hidden || !this.root.checkVisibility()) return this._lookAhead(IDLE_MS);
    const { checked, unusable, buckets } = await this._routes.items(now.look, { limit: 1, ahead: 1 }).catch(() => page);
    if (now !== this._now || page !== this.page) return undefined;
    const more = checked > page.checked;
    this.page = { ...page, checked, unusable, buckets };
    if (this._only.value === "problems" && unusable !== page.unusable) this.pages.renew();
    this._grid.update();
    this.render();
    return this._lookAhead(more ? AHEAD_MS : IDLE_MS);
  }

  // ---- what is seen

  _build() {
    this._status = element("span.scion-sheet-status", { role: "status" });
    this._choose = element("input", {
      type: "file",
      multiple: true,
      hidden: true,
      accept: "image/*,.txt",
      on: { change: () => this._chosen() },
    });
    this._adds = element("button.scion-button.scion-small", { type: "button", on: { click: () => this._choose.click() } });
    this._again = toolButton("⟳", "", () => this.refresh());
    this._again.classList.add("scion-small");
    this._only = element("select", { on: { change: () => this._filter() } });
    for (const value of ["", "problems", "uncaptioned"]) this._only.append(element("option", { value }));
    this._search = element("input", { type: "search", on: { input: () => this._filter() } });
    this._bar = element("div.scion-sheet-bar", {}, this._only, this._search);
    this._message = element("div.scion-message");
    this._empty = element("div.scion-sheet-empty");
    const stop = (event) => event.stopPropagation();
    return element(
      "div.scion.scion-sheet",
      { role: "group", on: { keydown: stop } },
      element("div.scion-sheet-head", {}, this._status, this._again, this._adds, this._choose),
      this._bar,
      this._message,
      element("div.scion-sheet-pictures", {}, this._grid.root, this._empty),
    );
  }

  _filter() {
    clearTimeout(this._filtering);
    this._filtering = setTimeout(() => {
      this._clear();
      if (this._now.look) this.pages.need(0, 1);
      this.render();
    }, SETTLE_MS);
  }

  _chosen() {
    const files = [...this._choose.files];
    this._choose.value = "";
    if (files.length) this._add(files);
  }

  /** Everything but the cells. */
  render() {
    const { look, why, needed } = this._now;
    const page = look ? this.page : null;
    const said = page ? summary(page, needed) : { text: "", tip: "" };
    setText(this._status, this._checks ? this._checkingWords(this._checks) : said.text);
    this._status.title = said.tip;
    this._words();
    show(this._bar, Boolean(page?.count));
    show(this._again, Boolean(look));
    show(this._adds, why !== "wired" && why !== "linked");
    const lines = [...(page?.problems ?? []).map((line) => `⚠ ${line}`), ...(page?.notes ?? [])];
    setText(this._message, lines.join("\n"));
    show(this._message, lines.length > 0);
    const empty = this._emptyWords(look, why, page);
    setText(this._empty, empty);
    show(this._empty, Boolean(empty));
    show(this._grid.root, !empty);
  }

  _checkingWords({ done, total }) {
    return t("sheet.checking", { done: count(done), total: count(total) });
  }

  _emptyWords(look, why, page) {
    if (!look) return t(`sheet.${why}`);
    if (this._error) return t("sheet.unread", { message: this._error.message });
    if (!page) return t("sheet.loading");
    if (!page.count) return t("sheet.empty");
    return this.pages.matching || this.pages.waits ? "" : t("sheet.noMatch");
  }

  /** In the page's language, which is known only some time after the node is there. */
  _words() {
    const say = (node, words) => node.title !== words && Object.assign(node, { title: words, ariaLabel: words });
    this.root.ariaLabel = this._grid.root.ariaLabel = t("sheet.label");
    say(this._again, t("sheet.refresh"));
    say(this._adds, t("sheet.addTip"));
    setText(this._adds, t("sheet.add"));
    this._adds.ariaLabel = t("sheet.add");
    say(this._only, t("sheet.filter"));
    say(this._search, t("sheet.search"));
    this._search.placeholder = t("sheet.search");
    ["sheet.all", "sheet.onlyProblems", "sheet.onlyUncaptioned"].forEach((key, i) => {
      setText(this._only.options[i], t(key));
    });
  }

  _make(cell) {
    cell.parts = {
      image: element("img", { alt: "", draggable: "false" }),
      sign: element("div.scion-cell-sign"),
      caption: element("div.scion-cell-caption"),
      foot: element("div.scion-cell-foot"),
    };
    const { image, sign, caption, foot } = cell.parts;
    cell.append(element("div.scion-cell-picture", {}, image, sign), caption, foot);
  }

  _fill(cell, index) {
    const item = this.pages.item(index);
    const name = this._now.look?.name ?? "";
    const draft = item && drafts.of(name, item.key);
    const state = `${name} ${this._version} ${draft}`;
    if (cell.item === item && cell.state === state) return;
    const { image, sign, caption, foot } = cell.parts;
    const url = item?.width ? this._routes.thumbnail(name, item.key, SIDE, this._stamp()) : "";
    if (cell.url !== url) {
      if (url) this._thumbnails.want(image, url);
      else this._thumbnails.forget(image);
    }
    Object.assign(cell, { item, state, url });
    const problem = item ? problemOf(item) : "";
    const unread = Boolean(item && !item.width);
    const marks = [draft !== null && `● ${t("sheet.unsaved")}`, !unread && warning(item), item && bucketOf(item)];
    setText(caption, item ? (draft ?? item.caption) : "…");
    setText(foot, marks.filter(Boolean).join(" · "));
    setText(sign, unread ? warning(item) : "");
    show(sign, unread);
    cell.classList.toggle("scion-cell-problem", Boolean(problem));
    cell.title = item ? [item.key, item.caption, problem].filter(Boolean).join("\n") : "";
    cell.setAttribute("aria-label", cell.title.replaceAll("\n", ", "));
  }

  _leave(cell) {
    this._thumbnails.forget(cell.parts.image);
    Object.assign(cell, { item: undefined, url: "" });
  }

  /** The browser keeps a picture by its address. */
  _stamp() {
    return `${this._routes.opened}-${this._version}`;
  }

  // ---- captions

  _open(index) {
    if (!this._now.look || !this.page || !this.pages.item(index)) return;
    this._editor = new CaptionEditor({
      routes: this._routes,
      look: this._now.look,
      page: this.page,
      pages: this.pages,
      index,
      stamp: this._stamp(),
      centred: this._now.centred,
      saved: (at) => this._grid.refill(at),
      closed: (at, changed) => {
        this._editor = null;
        if (changed) this.refresh();
        this._grid.focus(Math.min(at, Math.max(0, this._grid.count - 1)));
      },
    });
    this._editor.open();
  }
}

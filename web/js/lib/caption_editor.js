/** A picture of a dataset, large, with its caption to be written. */

import { Dialog, toolButton } from "./dialog.js";
import { element, setText, show } from "./dom.js";
import { bucketOf, captioned, keptOf, pixelsOf, problemOf, wordsIn } from "./sheet_words.js";
import { count, counted, t } from "./text.js";

const SIDE = 1024;
/** Less is cut off than a person sees. */
const WHOLE = 0.995;
/** As the server has it: text encoders read far fewer. */
const LETTERS_MOST = 20_000;

/** Captions that were written but not saved, by dataset and picture; they outlive every dialog. */
class Drafts {
  constructor() {
    /** @type {Map<string, Map<string, string>>} */
    this._all = new Map();
  }

  /** @param {string} name @returns {Map<string, string>} of a dataset, by picture */
  in(name) {
    const found = this._all.get(name) ?? new Map();
    this._all.set(name, found);
    return found;
  }

  /** @param {string} name @param {string} key @returns {string|null} */
  of(name, key) {
    return this._all.get(name)?.get(key) ?? null;
  }
}

export const drafts = new Drafts();

export class CaptionEditor {
  /**
   * @param {object} given
   * @param {import("./api.js").Routes} given.routes
   * @param {import("../types").Look} given.look
   * @param {import("../types").ItemsPage} given.page
   * @param {import("./pages.js").Pages} given.pages
   * @param {number} given.index of the picture that is shown first
   * @param {string} given.stamp of the files' state
   * @param {boolean} given.centred whether training cuts every picture in its middle
   * @param {(index: number) => void} given.saved a caption was written, or its draft has changed
   * @param {(index: number, changed: boolean) => void} given.closed at which picture; whether something was written
   */
  constructor(given) {
    this._given = given;
    this._index = given.index;
    this._drafts = drafts.in(given.look.name);
    this._changed = false;
    this._busy = false;
    this._shown = "";
    this._error = "";
    const { table, built_in } = given.page;
    this._locked = built_in ? t("caption.builtIn") : table ? t("caption.table", { table }) : "";
    this._place = element("span.scion-caption-place");
    this.dialog = new Dialog({
      before: [toolButton("←", t("caption.previous"), () => this._go(-1)), toolButton("→", t("caption.next"), () => this._go(1))],
      after: [this._place],
      onKey: (event) => this._key(event),
      mayClose: () => this._mayClose(),
    });
    this.dialog.root.classList.add("scion-caption-dialog");
    // A page that is closed or loaded anew asks, too.
    const leaving = (event) => this._drafts.size && event.preventDefault();
    window.addEventListener("beforeunload", leaving);
    this.dialog.root.addEventListener("close", () => {
      window.removeEventListener("beforeunload", leaving);
      given.closed(this._index, this._changed);
    });
    this._build();
  }

  open() {
    this.dialog.open();
    this.render();
    this._text.focus();
  }

  _build() {
    this._image = element("img", { on: { error: () => this._unseen(true), load: () => this._unseen(false) } });
    this._frame = element("div.scion-caption-frame", { title: t("caption.frame") });
    this._whole = element("div.scion-caption-whole", {}, this._image, this._frame);
    this._unread = element("div.scion-caption-unread", { text: t("caption.unread") });
    this._facts = element("dl.scion-caption-facts");
    this._text = element("textarea", {
      "aria-label": t("caption.text"),
      maxlength: LETTERS_MOST,
      rows: 8,
      spellcheck: "true",
      readonly: Boolean(this._locked),
      on: { input: () => this._typed() },
    });
    this._count = element("div.scion-caption-count");
    this._note = element("div.scion-message", { role: "status" });
    this._save = element("button.scion-button", {
      type: "button",
      title: t("caption.saveTip"),
      text: t("caption.save"),
      on: { click: () => this._saveThis() },
    });
    this._ask = this._buildAsk();
    this.dialog.body.append(
      element("div.scion-caption-picture", {}, this._whole, this._unread),
      element("div.scion-caption-side", {}, this._facts, this._text, this._count, this._note, this._save, this._ask),
    );
  }

  /** What is asked of whoever leaves with something unsaved. */
  _buildAsk() {
    const button = (key, act) => element("button.scion-button", { type: "button", text: t(key), on: { click: act } });
    this._asked = element("p");
    this._first = button("caption.saveAll", () => this._saveAll());
    const discard = button("caption.discard", () => {
      this._drafts.clear();
      this.dialog.close();
    });
    const back = button("caption.goOn", () => this._ending(false));
    const buttons = element("div.scion-buttons", {}, this._first, discard, back);
    return element("div.scion-caption-ask", { role: "alert", hidden: true }, this._asked, buttons);
  }

  _item() {
    return this._given.pages.item(this._index);
  }

  /** Also called when further pictures were loaded. */
  render() {
    const { pages, routes, look, stamp } = this._given;
    const item = this._item();
    pages.need(this._index, this._index + 1);
    const place = { number: count(this._index + 1), count: count(pages.matching) };
    setText(this._place, t("caption.place", place));
    if (!item) return;
    setText(this.dialog.title, item.key);
    if (this._shown !== item.key) {
      this._shown = item.key;
      this._text.value = this._drafts.get(item.key) ?? item.caption;
      this._image.alt = item.caption || item.key;
      this._unseen(!item.width);
      if (item.width) this._image.src = routes.thumbnail(look.name, item.key, SIDE, stamp);
      else this._image.removeAttribute("src");
    }
    const kept = keptOf(item);
    this._renderFrame(item, kept);
    this._renderFacts(item, kept);
    this._renderState(item);
  }

  /** What training sees of the picture, where that is always the same. */
  _renderFrame({ width, height }, kept) {
    if (width) this._whole.style.setProperty("--ratio", String(width / height));
    const cuts = this._given.centred && kept && Math.min(kept.across, kept.up) < WHOLE;
    show(this._frame, Boolean(cuts));
    if (cuts) this._frame.style.inset = `${50 * (1 - kept.up)}% ${50 * (1 - kept.across)}%`;
  }

  _renderFacts(item, kept) {
    const percent = kept ? Math.round(100 * kept.across * kept.up) : 100;
    const facts = {
      "caption.size": pixelsOf(item),
      "caption.bucket": bucketOf(item),
      "caption.kept": percent < 100 ? `${percent} %` : "",
      "caption.problem": problemOf(item),
    };
    const shown = Object.entries(facts).filter(([, value]) => value);
    this._facts.replaceChildren(
      ...shown.flatMap(([key, value]) => [
        element("dt", { text: t(key) }),
        element("dd", { text: key === "caption.problem" ? `⚠ ${value}` : value }),
      ]),
    );
  }

  _renderState(item) {
    const text = this._text.value;
    const unsaved = this._drafts.has(item.key);
    const said = [t("caption.count", { words: count(wordsIn(text)), letters: count([...text].length) })];
    if (unsaved) said.push(`● ${t("caption.unsaved")}`);
    setText(this._count, said.join(" · "));
    setText(this._note, this._locked || this._error);
    show(this._note, Boolean(this._locked || this._error));
    this._save.setAttribute("aria-disabled", String(!unsaved || this._busy));
    show(this._save, !this._locked);
  }

  _unseen(unseen) {
    show(this._unread, unseen);
    show(this._whole, !unseen);
  }

  _typed() {
    const item = this._item();
    if (!item) return;
    this._error = "";
    if (this._text.value === item.caption) this._drafts.delete(item.key);
    else this._drafts.set(item.key, this._text.value);
    this._given.saved(this._index);
    this._renderState(item);
  }

  _go(by) {
    const to = this._index + by;
    if (to < 0 || to >= this._given.pages.matching) return;
    this._index = to;
    this._error = "";
    this.render();
  }

  _key(event) {
    if (event.isComposing) return;
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.altKey && move) {
      event.preventDefault();
      this._go(move);
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this._saveThis();
    }
  }

  // ---- saving

  _saveThis() {
    const item = this._item();
    return item && this._drafts.has(item.key) ? this._saveKeys([item.key]) : undefined;
  }

  async _saveAll() {
    if (await this._saveKeys([...this._drafts.keys()])) this.dialog.close();
    else this._ending(false);
  }

  /** @returns {Promise<boolean>} whether all were written */
  async _saveKeys(keys) {
    if (this._busy) return false;
    this._busy = true;
    this._error = "";
    try {
      for (const key of keys) await this._write(key);
    } catch (error) {
      this._error = error.message;
    }
    this._busy = false;
    this.render();
    return !this._error;
  }

  async _write(key) {
    const { routes, look, pages, saved } = this._given;
    const text = this._drafts.get(key) ?? "";
    await routes.saveCaption(look, key, text);
    this._changed = true;
    // What was typed while it was being written is not saved yet.
    if (this._drafts.get(key) === text) this._drafts.delete(key);
    const index = this._indexOf(key);
    const item = index === null ? null : pages.item(index);
    if (index === null || !item) return;
    pages.replace(index, captioned(item, text));
    saved(index);
  }

  _indexOf(key) {
    for (let index = 0; index < this._given.pages.matching; index++) {
      if (this._given.pages.item(index)?.key === key) return index;
    }
    return null;
  }

  // ---- leaving

  _mayClose() {
    if (!this._drafts.size) return true;
    this._ending(true);
    return false;
  }

  _ending(asks) {
    setText(this._asked, counted("caption.leave", this._drafts.size));
    show(this._ask, asks);
    if (asks) this._first.focus();
    else this._text.focus();
  }
}

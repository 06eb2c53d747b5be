/** Previews, large: the pictures of a step with their prompts, beside those of another step under a slider. */

import { Dialog, toolButton } from "./dialog.js";
import { element, setText, show } from "./dom.js";
import { count, t } from "./text.js";

/** @param {import("../types").Preview} preview */
const pictures = (preview) => (preview.width && preview.count) || 1;

/**
 * Which picture of another step is of the same prompt: the prompts may have been changed in between.
 * @returns {number} -1 where there is none
 */
export function partner(shown, other, index) {
  const prompt = shown.prompts[index];
  if (prompt === undefined || prompt === other.prompts[index]) return index < pictures(other) ? index : -1;
  const found = other.prompts.indexOf(prompt);
  return found < pictures(other) ? found : -1;
}

/** A dialog over a run's previews. It lives until it is closed. */
export class PreviewDialog {
  /**
   * @param {{previews: import("../types").Preview[]}} view a run as the page knows it, or its history
   * @param {import("../types").Preview} preview the one to begin with
   * @param {(name: string) => string} address of a preview's picture
   */
  constructor(view, preview, address) {
    this._view = view;
    this._address = address;
    this._name = preview.name;
    this._other = "";
    this._build();
    this._fill();
    this._dialog.open();
  }

  _build() {
    this._older = toolButton("◀", t("older"), () => this._go(-1));
    this._newer = toolButton("▶", t("newer"), () => this._go(1));
    this._with = element("select", { on: { change: () => this._compare(this._with.value) } });
    this._slider = element("input", { type: "range", min: 0, max: 100, value: 50, on: { input: () => this._share() } });
    this._sliderLabel = element("label", {}, this._slider);
    this._pictures = element("div.scion-pictures");
    this._dialog = new Dialog({
      before: [this._older, this._newer],
      after: [element("label", {}, element("span", { text: t("compare") }), this._with), this._sliderLabel],
      onKey: (event) => this._key(event),
    });
    this._dialog.body.append(this._pictures);
  }

  get _at() {
    return this._view.previews.findIndex((one) => one.name === this._name);
  }

  _go(by) {
    const next = this._view.previews[this._at + by];
    if (!next) return;
    this._name = next.name;
    if (this._other === next.name) this._other = "";
    this._fill();
  }

  _compare(name) {
    this._other = name;
    this._fill();
  }

  _key(event) {
    if (event.target === this._slider || event.target === this._with) return;
    if (event.key === "ArrowLeft") this._go(-1);
    if (event.key === "ArrowRight") this._go(1);
  }

  _share() {
    this._dialog.root.style.setProperty("--share", String(Number(this._slider.value) / 100));
  }

  /** The edge follows the pointer over the pictures, too. */
  _drag(event, stage) {
    if (!this._other || !event.buttons) return;
    const { left, width } = stage.getBoundingClientRect();
    this._slider.value = String(Math.round(((event.clientX - left) / width) * 100));
    this._share();
  }

  _fill() {
    const { previews } = this._view;
    const shown = previews[this._at];
    const other = previews.find((one) => one.name === this._other);
    setText(this._dialog.title, t("previewOf", { step: count(shown.step) }));
    this._older.setAttribute("aria-disabled", String(this._at === 0));
    this._newer.setAttribute("aria-disabled", String(this._at === previews.length - 1));
    this._with.replaceChildren(
      element("option", { value: "", text: t("compareNone") }),
      ...previews
        .filter((one) => one !== shown)
        .map((one) => element("option", { value: one.name, text: t("atStep", { step: count(one.step) }) })),
    );
    this._with.value = this._other;
    show(this._sliderLabel, Boolean(other));
    this._slider.setAttribute("aria-label", t("slider", { step: count(Math.min(shown.step, other?.step ?? 0)) }));
    this._share();
    const all = Array.from({ length: pictures(shown) }, (_, i) => this._picture(shown, other, i));
    this._pictures.replaceChildren(...all);
  }

  _picture(shown, other, index) {
    const stage = element(
      "div.scion-stage",
      { on: { pointermove: (event) => this._drag(event, stage), pointerdown: (event) => this._drag(event, stage) } },
      this._layer(shown, index, (ratio) => (stage.style.aspectRatio = String(ratio))),
    );
    stage.style.aspectRatio = "1";
    const same = other ? partner(shown, other, index) : -1;
    if (same >= 0) {
      const over = this._layer(other, same, () => {});
      // Time goes from left to right.
      over.classList.add(other.step < shown.step ? "scion-over" : "scion-after");
      const steps = [other.step, shown.step].sort((a, b) => a - b);
      stage.append(
        over,
        element("div.scion-edge"),
        element("span.scion-tag.scion-left", { text: t("atStep", { step: count(steps[0]) }) }),
        element("span.scion-tag.scion-right", { text: t("atStep", { step: count(steps[1]) }) }),
      );
    }
    const prompt = shown.prompts[index] ?? t("prompt", { number: index + 1 });
    const without = other && same < 0 ? ` · ${t("notInStep", { step: count(other.step) })}` : "";
    return element("figure", {}, stage, element("figcaption", { text: prompt + without }));
  }

  /** One picture of a strip, in which all of a step stand side by side. */
  _layer(preview, index, measured) {
    const image = element("img", {
      src: this._address(preview.name),
      alt: preview.prompts[index] ?? t("prompt", { number: index + 1 }),
      draggable: "false",
      on: { load: () => measured(image.naturalWidth / pictures(preview) / image.naturalHeight) },
    });
    image.style.width = `${100 * pictures(preview)}%`;
    image.style.left = `${-100 * index}%`;
    return element("div.scion-layer", {}, image);
  }
}

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { idleWidgets } from "../../web/js/lib/idle.js";
import { differing, equalTo } from "../../web/js/lib/presets.js";
import { SETTINGS, THEMES } from "../../web/js/lib/settings.js";

const rule = (widget, when, idle = null) => ({ id: `${widget}@`, widget, when, why: "", idle });
const RULES = [
  rule("factor", [{ widget: "kind", among: ["lora", "oft"] }], [0]),
  rule("name", [{ widget: "custom", other: [""] }]),
  rule("prior", [{ widget: "class", among: [false] }, { input: "more" }]),
  rule("plus", [{ widget: "name", among: ["prodigy"] }], [0, 1]),
  rule("plus", [{ widget: "kind", among: ["oft"] }], [0, 1]),
];
const said = (values) =>
  Object.fromEntries([...idleWidgets(RULES, ({ widget, input }) => values[widget ?? input])].map(([k, v]) => [k, v.grey]));

test("a widget is grey where all that its rule asks for is so", () => {
  assert.deepEqual(said({ kind: "lora", factor: 0, custom: " ", class: false, more: null }), { factor: true, prior: true });
  assert.deepEqual(said({ kind: "lokr", factor: 0, custom: "a.B", class: false, more: 7 }), { name: true });
});

test("what is not known greys nothing", () => {
  assert.deepEqual(said({ factor: 0 }), {});
});

test("a value that would be refused can be set back", () => {
  assert.deepEqual(said({ kind: "oft", factor: 4, plus: 1 }), { factor: false, plus: true });
  assert.deepEqual(said({ kind: "oft", name: "prodigy", plus: 16, factor: 0 }), { factor: true, plus: false });
});

test("a preset is equalled by numbers that differ in their last bit, and by what it does not speak of", () => {
  const presets = { a: { rank: 8, rate: 3e-4, targets: "attention" }, b: { rank: 16, rate: 1e-4, targets: "attention" } };
  assert.equal(equalTo(presets, { rank: 16, rate: 0.1 / 1000, targets: " attention", seed: 3 }), "b");
  assert.equal(equalTo(presets, { rank: 8, rate: 1e-4, targets: "attention" }), null);
  assert.deepEqual(differing(presets.a, { rank: 9, targets: "all" }), ["rank", "targets"]);
});

test("every setting of the pack, and every choice of it, is named in Chinese", () => {
  const file = new URL("../../locales/zh/settings.json", import.meta.url);
  const words = JSON.parse(readFileSync(file, "utf8"));
  assert.deepEqual(Object.keys(words).sort(), SETTINGS.map(({ id }) => id.replace(".", "_")).sort());
  for (const { name, tooltip } of Object.values(words)) assert.ok(name && tooltip);
  assert.deepEqual(
    Object.keys(words.Scion_ChartTheme.options),
    THEMES.map(({ text }) => text),
  );
});

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { ENGLISH, bytes, load, loss, rate, span, speed, t } from "../../web/js/lib/text.js";

const LOCALES = new URL("../../locales/", import.meta.url);
const words = (language) => JSON.parse(readFileSync(new URL(`${language}/main.json`, LOCALES), "utf8")).scion;
const translated = readdirSync(LOCALES).filter((language) => language !== "en");
const placeholders = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();
const server = (answer) => ({ fetchApi: async () => ({ json: async () => answer }) });

test("every word is in every language, with the same placeholders", () => {
  assert.ok(translated.includes("zh"));
  for (const language of translated) {
    assert.deepEqual(Object.keys(words(language)).sort(), Object.keys(ENGLISH).sort(), language);
    for (const [key, text] of Object.entries(words(language))) {
      assert.deepEqual(placeholders(text), placeholders(ENGLISH[key]), `${language} ${key}`);
    }
  }
});

test("the words are those of the host's language, English where there are none", async () => {
  await load(server({ zh: { scion: words("zh") } }), "zh");
  assert.equal(t("of", { done: 1, total: 2 }), "1 / 2");
  assert.equal(t("finish"), "停止并使用");
  await load(server({}), "fr");
  assert.equal(t("finish"), "Stop and use");
  await load({ fetchApi: () => Promise.reject(new Error("offline")) }, "en");
  assert.equal(t("prompt", { number: "{step}" }), "Prompt {step}");
});

test("numbers are written as a person reads them", () => {
  assert.deepEqual([0.123456, 0.00012, null, NaN].map(loss), ["0.1235", "1.20e-4", "–", "–"]);
  assert.deepEqual([1e-4, 0, 4.166e-5].map(rate), ["1e-4", "0", "4.17e-5"]);
  assert.deepEqual([512, 7.3 * 2 ** 30, 200 * 2 ** 20].map(bytes), ["512 B", "7.3 GiB", "200 MiB"]);
  assert.deepEqual([59.6, 3725].map(span), ["1:00", "1:02:05"]);
  assert.deepEqual([2, 0.25, 0].map(speed), ["2.00 s/step", "4.0 steps/s", "–"]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { partner } from "../../web/js/lib/compare.js";

const drawn = (...prompts) => ({ prompts, count: prompts.length, width: 64 });

test("pictures of two steps are compared by their prompts, which may have been changed in between", () => {
  const shown = drawn("a fox", "a dog", "a cat");
  assert.deepEqual(
    [0, 1, 2].map((index) => partner(shown, drawn("a cat", "a dog"), index)),
    [-1, 1, 0],
  );
  assert.equal(
    partner(drawn("a fox", "a fox"), drawn("a fox", "a fox"), 1),
    1,
    "two of one prompt are told apart by their place",
  );
  assert.equal(partner(drawn("a fox"), { prompts: ["a fox", "a dog"], count: null, width: null }, 0), 0);
  assert.equal(partner({ prompts: [], count: 2, width: 64 }, { prompts: [], count: 1, width: 64 }, 1), -1);
});

/** A LoRA that was saved is listed by the graph's LoRA loaders at once, without the reload key. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { refreshLists } from "./lib/lists.js";

app.registerExtension({
  name: "scion.saved",
  setup() {
    api.addEventListener("scion.saved", () => refreshLists(app));
  },
});

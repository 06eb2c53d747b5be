/** The pack's section in ComfyUI's settings. The server reads the interval itself; config.js what new nodes keep. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { Routes } from "./lib/api.js";
import { element, styleSheet } from "./lib/dom.js";
import { FOLDERS, SETTINGS, THEME, THEMES } from "./lib/settings.js";
import { t } from "./lib/text.js";

const routes = new Routes(api);

/** The charts watch the root's classes, and draw themselves anew. */
function paint(theme) {
  for (const { value } of THEMES) document.documentElement.classList.toggle(`scion-chart-${value}`, value === theme);
}

/** A list to read: what may be read from the disk is not for a page to decide. */
function folders() {
  const root = element("div.scion.scion-folders", { tabindex: 0 });
  routes.settings().then(
    ({ roots, file }) =>
      root.append(
        element("div", { text: t("settings.roots") }),
        element("ul", {}, ...roots.map((folder) => element("li", { text: folder }))),
        element("div", { text: t("settings.allow", { file }) }),
        element("code", { text: '{"datasets": ["/a/folder"]}' }),
      ),
    (error) => root.append(t("settings.unread", { why: error.message })),
  );
  return root;
}

const OURS = { [FOLDERS]: { type: folders }, [THEME]: { onChange: paint } };

app.registerExtension({
  name: "scion.settings",
  settings: SETTINGS.map((setting) => ({ ...setting, ...OURS[setting.id] })),
  setup() {
    styleSheet("chart_themes.css");
    paint(app.extensionManager?.setting?.get(THEME));
  },
});

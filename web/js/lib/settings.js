/** The pack's own settings in ComfyUI's dialog: what they are called, and what they can be. */

export const INTERVAL = "Scion.EventInterval";
export const THEME = "Scion.ChartTheme";
export const KEEP = "Scion.KeepCheckpoints";
export const FOLDERS = "Scion.DatasetFolders";

/** Each is a class of the page's root, `scion-chart-<value>`; their colours are in css/chart_themes.css. */
export const THEMES = [
  { text: "As ComfyUI", value: "host" },
  { text: "High contrast", value: "contrast" },
  { text: "Colour-blind safe", value: "safe" },
];

/** English; other languages are in locales/<language>/settings.json. The dialog shows the last of a section first. */
export const SETTINGS = [
  {
    id: FOLDERS,
    category: ["Scion", "Datasets", "Folders"],
    name: "Allowed dataset folders",
    tooltip: "What the dataset node offers; only a file on the server can allow more",
    type: "hidden",
    defaultValue: null,
  },
  {
    id: KEEP,
    category: ["Scion", "Training", "Checkpoints"],
    name: "Checkpoints that a new config node keeps",
    tooltip: "The default of keep_checkpoints for LoRA Train Config nodes that are added from now on",
    type: "number",
    attrs: { min: 1, max: 1000, step: 1, showButtons: true },
    defaultValue: 3,
  },
  {
    id: THEME,
    category: ["Scion", "Panel", "Chart"],
    name: "Theme of the loss chart",
    tooltip: "Colour-blind safe has the colours of Okabe and Ito",
    type: "combo",
    options: THEMES,
    defaultValue: "host",
  },
  {
    id: INTERVAL,
    category: ["Scion", "Panel", "Events"],
    name: "Seconds between two messages of a training",
    tooltip: "0.05 to 60; trainings that begin from now on obey. More means less traffic on a slow line",
    type: "number",
    attrs: { min: 0.05, max: 60, step: 0.05, maxFractionDigits: 2, showButtons: true },
    defaultValue: 0.1,
  },
];

/** English words of the presets on LoRA Train Config, and of the pack's own settings. */

export const CONFIG = {
  preset: "preset",
  "preset.person": "person",
  "preset.style": "style",
  "preset.object": "object",
  "preset.fast": "fast",
  "preset.balanced": "balanced",
  "preset.careful": "careful",
  "preset.name": "{subject} · {pace}",
  "preset.own": "own settings",
  "preset.changed": "{preset}, changed",
  "preset.tip": "Fills the settings below, and some under advanced: starting points that can be changed",
  "preset.equal": "The settings equal this preset",
  "preset.differs": "{widget}: {now} instead of {usual}",
  "preset.prompts": "Preview prompts, one per line; empty = captions of the dataset",
  "idle.refused": "To be set back: {why}",
  "settings.roots": "Datasets are folders below these:",
  "settings.allow": "To allow more, add them to {file} on the server and reload the page:",
  "settings.unread": "The server does not say: {why}",
};

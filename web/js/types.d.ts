/** What passes between the server and the page. */

export interface Best {
  step: number;
  loss: number;
}

export interface Phase {
  what: string;
  done: number;
  total: number;
}

export interface Active {
  node: string;
  prompt_id: string;
  run: string | null;
  phase: Phase | null;
  step: number;
  total: number;
}

export interface Preview {
  step: number;
  name: string;
  prompts: string[];
  /** Pictures side by side; null where an older Scion drew them. */
  count: number | null;
  /** Of each picture, in pixels. */
  width: number | null;
  height: number | null;
}

export interface History {
  run: string;
  status: "unfinished" | "stopped" | "finished";
  early: boolean;
  by_hand: boolean;
  /** What ended it, where that was an error. */
  failure: string;
  active: boolean;
  step: number;
  total: number;
  lora: string | null;
  /** The end of its own smoothed losses, of all steps. */
  loss: number | null;
  settings: Record<string, unknown>;
  /** Names of its folders, "" for wired pictures; empty where that is not known. */
  dataset: string[];
  series: { step: number[]; loss: (number | null)[]; low: (number | null)[]; high: (number | null)[] };
  learning_rate: [number, number][];
  validation: [number, number | null][];
  best: Best | null;
  checkpoints: number[];
  previews: Preview[];
  seconds_per_step: number | null;
}

/** A run in the list of all. */
export interface Listed {
  run: string;
  name: string;
  status: "unfinished" | "stopped" | "finished";
  /** What ended it, where that was an error. */
  failure: string;
  early: boolean;
  active: boolean;
  step: number;
  total: number;
  /** Seconds since 1970. */
  started_at: number;
  finished_at: number | null;
  loss: number | null;
  validation: Best | null;
  lora: string | null;
  /** The main ones. */
  settings: Record<string, unknown>;
  bytes: number;
  preview: string | null;
  curve: [number, number | null][];
  /** Whether the workflow that it was queued with is kept. */
  workflow: boolean;
}

export interface Told {
  node: string;
  prompt_id: string | null;
  run: string | null;
}

export interface StepsTold extends Told {
  first: number;
  losses: (number | null)[];
  total: number;
  learning_rate: number;
  epoch: number;
  seconds_per_step: number;
  seconds_left: number;
  memory: number;
}

/** The numbers beside the chart. */
export interface Figures {
  learning_rate: number | null;
  epoch: number | null;
  seconds_per_step: number | null;
  seconds_left: number | null;
  memory: number | null;
}

/** One of the things that must be for a rule of idle widgets to hold: a widget's value, or an input that is not wired. */
export interface IdleCondition {
  widget?: string;
  among?: unknown[];
  other?: unknown[];
  /** The type of the other node whose widget is meant. */
  node?: string;
  input?: string;
}

export interface IdleRule {
  id: string;
  widget: string;
  when: IdleCondition[];
  why: string;
  /** The values that are not refused; null where any is ignored. */
  idle: unknown[] | null;
}

/** What the server tells of widgets. */
export type SettingNames = Record<string, [node: string, widget: string]>;

export interface Widgets {
  presets: Record<string, Record<string, unknown>>;
  idle: Record<string, IdleRule[]>;
  /** Node and widget that stand for each setting. */
  settings: SettingNames;
}

/** One picture of a dataset. */
export interface Item {
  key: string;
  caption: string;
  /** Upright, in pixels; null where it cannot be read. */
  width: number | null;
  height: number | null;
  bucket: [number, number] | null;
  problem: string | null;
}

export interface ItemsPage {
  count: number;
  matching: number;
  checked: number;
  unusable: number;
  uncaptioned: number;
  buckets: [[number, number], number][];
  /** The metadata table that gives the captions. */
  table: string | null;
  built_in: boolean;
  in_input: boolean;
  items: Item[];
  problems: string[];
  notes: string[];
}

/** What is looked at of a dataset. */
export interface Look {
  name: string;
  /** By name of the route's query: where captions come from, and what buckets follow from. */
  settings: Record<string, string | number>;
}

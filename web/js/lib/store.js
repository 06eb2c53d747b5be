/** What the page knows of the runs: events as they come, merged with the history that the server has. */

import { Series, smoothingWindow } from "./series.js";

/** Events of the server that tell of a run. */
const EVENTS = ["working", "scanned", "started", "step", "validation", "preview", "checkpoint", "warning", "finished", "failed"];
const HISTORY_POINTS = 4000;

/** One run as it is shown: of a node that works now, or of a run's history alone. */
export class View {
  constructor() {
    /** @type {string|null} */ this.run = null;
    /** @type {string|null} */ this.node = null;
    /** @type {string|null} */ this.prompt = null;
    /** @type {"waiting"|"training"|"finished"|"stopped"|"unfinished"|"failed"|"gone"} */ this.status = "waiting";
    /** Whether it works now: what the buttons ask. */
    this.live = false;
    this.early = false;
    /** Whether somebody asked for its early end; else validation did. */
    this.byHand = false;
    /** Whether the last time that it was queued trained it: a run that was finished before is returned at once. */
    this.trained = true;
    this.step = 0;
    this.total = 0;
    /** @type {import("../types").Phase|null} */ this.phase = null;
    /** @type {string|null} */ this.lora = null;
    /** @type {string} */ this.message = "";
    this.series = new Series();
    /** @type {[number, number][]} */ this.validation = [];
    /** @type {import("../types").Best|null} */ this.best = null;
    /** @type {number[]} */ this.checkpoints = [];
    /** @type {import("../types").Preview[]} */ this.previews = [];
    /** @type {string[]} */ this.warnings = [];
    /** @type {import("../types").Figures} */
    this.figures = { learning_rate: null, epoch: null, seconds_per_step: null, seconds_left: null, memory: null };
  }

  /** @param {number} total */
  sized(total) {
    if (!total) return;
    this.total = total;
    this.series.smoothOver(smoothingWindow(total));
  }

  /**
   * What lies behind a step that is taken anew never happened.
   * @param {number} first
   */
  cutAt(first) {
    this.validation = this.validation.filter(([step]) => step < first);
    this.checkpoints = this.checkpoints.filter((step) => step < first);
  }
}

const bySteps = (a, b) => a.step - b.step;

/** One a page. `listen` hears every change of a view. */
export class RunStore {
  /**
   * @param {EventTarget} events the frontend's api object
   * @param {import("./api.js").Routes} routes
   */
  constructor(events, routes) {
    this._events = events;
    this._routes = routes;
    /** Views of nodes that work or did while the page was open, by prompt and node. @type {Map<string, View>} */
    this._working = new Map();
    /** @type {Map<string, View>} */
    this._runs = new Map();
    /** @type {Set<(view: View, what: string) => void>} */
    this._listeners = new Set();
    /** @type {Map<string, Promise<string|null>>} */
    this._workflows = new Map();
    this._bound = [];
  }

  /** Hears the server from now on, and asks it what trains already. */
  start() {
    for (const name of EVENTS) {
      const heard = (event) => this._hear(name, event.detail);
      this._events.addEventListener(`scion.${name}`, heard);
      this._bound.push([`scion.${name}`, heard]);
    }
    const ended = (event) => this._promptEnded(event.detail);
    const again = () => this.join();
    for (const name of ["execution_error", "execution_interrupted", "execution_success"]) this._bind(name, ended);
    this._bind("reconnected", again);
    return this.join();
  }

  stop() {
    for (const [name, heard] of this._bound.splice(0)) this._events.removeEventListener(name, heard);
  }

  _bind(name, heard) {
    this._events.addEventListener(name, heard);
    this._bound.push([name, heard]);
  }

  /**
   * @param {(view: View, what: string) => void} listener hears the view and what changed: an event's name, or "history"
   * @returns {() => void} ends it
   */
  listen(listener) {
    this._listeners.add(listener);
    return () => this._listeners.delete(listener);
  }

  get listening() {
    return this._listeners.size;
  }

  _changed(view, what) {
    for (const listener of [...this._listeners]) listener(view, what);
  }

  /** Views of what works now, the latest last. */
  live() {
    return [...this._working.values()].filter((view) => view.live);
  }

  /**
   * The workflow a prompt came from, asked once; null where the server does not know.
   * @param {string|null} prompt
   */
  workflowOf(prompt) {
    if (!prompt) return Promise.resolve(null);
    let asked = this._workflows.get(prompt);
    if (!asked) {
      asked = this._routes.workflowOf(prompt).catch(() => null);
      this._workflows.set(prompt, asked);
    }
    return asked;
  }

  /** Late join: runs that began before the page did, or went on while the connection was lost. */
  async join() {
    const active = await this._routes.active().catch(() => null);
    if (!active) return;
    for (const view of this.live()) {
      if (active.some((one) => one.prompt_id === view.prompt && one.node === view.node)) continue;
      // It ended while nobody listened; its history says how.
      view.live = false;
      view.phase = null;
      if (view.run) await this.refresh(view);
      else this._changed(view, "gone");
    }
    for (const one of active) {
      const view = this._viewOf(one);
      view.live = true;
      if (!["training", "waiting"].includes(view.status)) view.status = "waiting";
      view.phase = one.phase?.what ? one.phase : null;
      view.sized(one.total);
      view.step = Math.max(view.step, one.step ?? 0);
      if (view.run) {
        view.status = "training";
        await this.refresh(view);
      }
      this._changed(view, "joined");
    }
  }

  /**
   * A run by its id, from its history; at once if it is known already.
   * @param {string} run
   * @returns {View}
   */
  open(run) {
    let view = this._runs.get(run);
    if (!view) {
      view = new View();
      view.run = run;
      view.status = "unfinished";
      this._runs.set(run, view);
      this.refresh(view);
    }
    return view;
  }

  /**
   * A run that was opened again or deleted from elsewhere on the page.
   * @param {string} run
   */
  async changed(run) {
    const view = this._runs.get(run);
    if (view) await this.refresh(view);
  }

  /**
   * Brings the server's history into a view.
   * @param {View} view
   */
  async refresh(view) {
    let history;
    try {
      history = await this._routes.history(view.run, HISTORY_POINTS);
    } catch (error) {
      if (error.status === 404 && !view.live) {
        Object.assign(view, { status: "gone", message: "", warnings: [] });
        this._runs.delete(view.run);
      } else view.message = String(error.message);
      this._changed(view, "history");
      return;
    }
    mergeHistory(view, history);
    this._changed(view, "history");
  }

  _viewOf(told) {
    const key = `${told.prompt_id ?? ""} ${told.node}`;
    let view = this._working.get(key);
    if (!view) {
      view = new View();
      view.node = String(told.node);
      view.prompt = told.prompt_id;
      this._working.set(key, view);
      // The node's earlier prompts have ended: their views would only grow in number.
      for (const [other, old] of this._working)
        if (!old.live && old.node === view.node && other !== key) this._working.delete(other);
    }
    if (told.run && view.run !== told.run) {
      view.run = told.run;
      this._runs.set(told.run, view);
    }
    return view;
  }

  _hear(name, told) {
    if (!told?.node) return;
    const view = this._viewOf(told);
    HEARD[name](view, told, this);
    this._changed(view, name);
  }

  /** A node that is cancelled or fails outside of training says nothing more itself. */
  _promptEnded(detail) {
    for (const view of this.live()) {
      if (view.prompt !== detail?.prompt_id) continue;
      view.live = false;
      view.phase = null;
      if (view.status === "waiting") {
        view.status = "stopped";
        view.message = detail.exception_message ?? "";
        if (view.message) view.status = "failed";
      }
      this._changed(view, "ended");
    }
  }
}

function began(view) {
  view.live = true;
  if (view.status !== "training") view.status = "waiting";
}

/** What each event changes. @type {Record<string, (view: View, told: any, store: RunStore) => void>} */
const HEARD = {
  working(view, told) {
    began(view);
    view.phase = { what: told.what, done: told.done, total: told.total };
  },
  scanned(view) {
    began(view);
    view.phase = null;
  },
  started(view, told, store) {
    view.live = true;
    view.status = "training";
    view.phase = null;
    view.early = false;
    view.trained = true;
    view.message = "";
    view.step = told.step;
    view.sized(told.total);
    // A run that goes on has a past that no event tells.
    if (told.step > 0) store.refresh(view);
  },
  step(view, told) {
    view.live = true;
    view.status = "training";
    view.phase = null;
    view.sized(told.total);
    const last = told.first + told.losses.length - 1;
    if (told.first <= view.series.last) view.cutAt(told.first);
    view.series.append(told.first, told.losses);
    view.step = last;
    for (const name of Object.keys(view.figures)) view.figures[name] = told[name] ?? null;
  },
  validation(view, told) {
    view.phase = null;
    if (told.loss !== null) view.validation = [...view.validation.filter(([step]) => step !== told.step), [told.step, told.loss]];
    view.best = told.best;
  },
  preview(view, told) {
    view.phase = null;
    view.previews = [...view.previews.filter((one) => one.name !== told.name), told].sort(bySteps);
  },
  checkpoint(view, told) {
    view.phase = null;
    if (!view.checkpoints.includes(told.step)) view.checkpoints = [...view.checkpoints, told.step];
  },
  warning(view, told) {
    if (!view.warnings.includes(told.message)) view.warnings = [...view.warnings, told.message];
  },
  finished(view, told, store) {
    view.live = false;
    view.phase = null;
    view.status = told.status;
    view.early = Boolean(told.early);
    view.byHand = Boolean(told.by_hand);
    view.trained = told.trained !== false;
    view.step = told.step;
    view.sized(told.total);
    view.lora = told.lora;
    view.figures.seconds_left = null;
    // A run that was finished before sent no steps.
    if (view.run && !view.series.length) store.refresh(view);
  },
  failed(view, told) {
    view.live = false;
    view.phase = null;
    view.status = "failed";
    view.message = told.message;
    view.step = told.step ?? view.step;
  },
};

/**
 * @param {View} view
 * @param {import("../types").History} history
 */
export function mergeHistory(view, history) {
  view.series.merge(history.series);
  view.sized(history.total);
  const validation = history.validation.filter(([, loss]) => loss !== null);
  const known = new Set(validation.map(([step]) => step));
  view.validation = [...validation, ...view.validation.filter(([step]) => !known.has(step) && step > history.step)];
  view.best = history.best ?? view.best;
  view.checkpoints = [...new Set([...history.checkpoints, ...view.checkpoints])].sort((a, b) => a - b);
  const names = new Set(history.previews.map((one) => one.name));
  view.previews = [...history.previews, ...view.previews.filter((one) => !names.has(one.name))].sort(bySteps);
  view.figures.seconds_per_step ??= history.seconds_per_step;
  view.figures.learning_rate ??= history.learning_rate.at(-1)?.[1] ?? null;
  if (view.live) {
    view.step = Math.max(view.step, history.step);
    return;
  }
  view.step = history.step;
  if (history.failure) Object.assign(view, { status: "failed", message: history.failure });
  else if (view.status !== "failed") view.status = history.status;
  view.early = history.early;
  view.byHand = history.by_hand;
  view.lora = history.lora;
}

/** The pack's routes on the host's server. */

export class RouteError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const part = encodeURIComponent;

/** Asks the server; `host` is the frontend's api object. */
export class Routes {
  /** @param {{fetchApi: (path: string, init?: RequestInit) => Promise<Response>, apiURL: (path: string) => string}} host */
  constructor(host) {
    this._host = host;
    /** Tells this page's questions from those of an earlier one. */
    this.opened = Date.now().toString(36);
  }

  /**
   * @returns {Promise<any>} the answer's JSON, null for an empty one
   * @throws {RouteError} with the server's own sentence where it gave one
   */
  async _ask(path, init) {
    const response = await this._host.fetchApi(path, init);
    const text = await response.text();
    let answer = null;
    try {
      answer = text ? JSON.parse(text) : null;
    } catch {
      // A proxy's page, say: the status tells enough.
    }
    if (!response.ok) throw new RouteError(answer?.error ?? `${response.status} ${response.statusText}`, response.status);
    return answer;
  }

  _post(path, body = {}) {
    return this._ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  /** @returns {Promise<import("../types").Active[]>} what trains now */
  async active() {
    return (await this._ask("/scion/active"))?.runs ?? [];
  }

  /** @returns {Promise<import("../types").Listed[]>} every run, the newest first */
  async runs() {
    return (await this._ask("/scion/runs"))?.runs ?? [];
  }

  /**
   * @param {string} run
   * @param {number} points of the loss, at most
   * @param {boolean} [everySetting] that decides the weights, not the main ones alone
   * @returns {Promise<import("../types").History>}
   */
  history(run, points, everySetting = false) {
    return this._ask(`/scion/runs/${part(run)}?points=${points}${everySetting ? "&settings=all" : ""}`);
  }

  /**
   * @param {string} run
   * @returns {Promise<any>} the workflow that it was queued with
   */
  workflow(run) {
    return this._ask(`/scion/runs/${part(run)}/workflow`);
  }

  /** @param {string} run @param {"finish"|"checkpoint"|"sample"} command */
  command(run, command) {
    return this._post(`/scion/runs/${part(run)}/commands`, { command });
  }

  /** @param {string} run */
  goOn(run) {
    return this._post(`/scion/runs/${part(run)}/continue`);
  }

  /** @param {string} run @returns {Promise<{bytes: number}>} */
  delete(run) {
    return this._ask(`/scion/runs/${part(run)}`, { method: "DELETE" });
  }

  /**
   * A preview's pictures side by side, without captions.
   * The host lets pictures be kept for a day, but a run that is begun anew draws others of the same names.
   * @param {string} run
   * @param {string} name
   * @param {string|null} [prompt] that drew it, where it was drawn while the page was open
   * @param {number} [height] in pixels, for a small one; 0 = as it is
   */
  preview(run, name, prompt, height = 0) {
    const of = part(prompt ?? this.opened);
    return this._host.apiURL(`/scion/runs/${part(run)}/previews/${part(name)}?bare=1&height=${height}&of=${of}`);
  }

  /** @returns {Promise<import("../types").Widgets>} how presets fill widgets, and which widgets do nothing beside which */
  widgets() {
    return this._ask("/scion/widgets");
  }

  /** @returns {Promise<{roots: string[], file: string}>} the folders below which datasets may lie, and what allows more */
  settings() {
    return this._ask("/scion/settings");
  }

  /**
   * The id of the workflow that a prompt was queued from; null where that is not known (any more).
   * @param {string} prompt
   * @returns {Promise<string|null>}
   */
  async workflowOf(prompt) {
    const queue = await this._ask("/queue");
    let entry = [...(queue?.queue_running ?? []), ...(queue?.queue_pending ?? [])].find((item) => item[1] === prompt);
    entry ??= (await this._ask(`/history/${part(prompt)}`))?.[prompt]?.prompt;
    return entry?.[3]?.extra_pnginfo?.workflow?.id ?? null;
  }

  /**
   * @param {import("../types").Look} look
   * @param {Record<string, string|number>} wanted offset, limit, only, q, ahead, fresh
   * @returns {Promise<import("../types").ItemsPage>}
   */
  items({ name, settings }, wanted) {
    const query = new URLSearchParams(Object.entries({ ...settings, ...wanted }).map(([key, value]) => [key, String(value)]));
    return this._ask(`/scion/datasets/${part(name)}/items?${query}`);
  }

  /**
   * @param {string} name of the dataset
   * @param {string} key of the picture
   * @param {number} side in pixels
   * @param {string} of changes where the files may have changed: a page does not ask again for what it has shown
   */
  thumbnail(name, key, side, of) {
    return this._host.apiURL(`/scion/datasets/${part(name)}/thumbnails/${part(key)}?side=${side}&of=${part(of)}`);
  }

  /** @param {import("../types").Look} look @param {string} key @param {string} caption */
  saveCaption({ name, settings }, key, caption) {
    return this._ask(`/scion/datasets/${part(name)}/captions/${part(key)}?captions=${settings.captions ?? "auto"}`, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ caption }),
    });
  }

  /**
   * Sends files into a dataset; unlike fetch, it tells how far it is.
   * @param {string} name of the dataset
   * @param {File[]} files
   * @param {object} how
   * @param {boolean} how.replace files of the same name
   * @param {(bytes: number) => void} how.told so many bytes are sent
   * @param {AbortSignal} how.signal
   * @returns {Promise<{written: string[], refused: {name: string, why: string}[]}>}
   */
  sendFiles(name, files, { replace, told, signal }) {
    const form = new FormData();
    for (const file of files) form.append("files", file, file.name);
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", this._host.apiURL(`/scion/datasets/${part(name)}/files?replace=${replace ? 1 : 0}`));
      request.responseType = "json";
      request.upload.onprogress = (event) => told(event.loaded);
      request.onload = () => {
        if (request.status === 200) resolve(request.response);
        else reject(new RouteError(request.response?.error ?? `${request.status} ${request.statusText}`, request.status));
      };
      request.onerror = () => reject(new RouteError("", 0));
      request.onabort = () => reject(signal.reason);
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(form);
    });
  }
}

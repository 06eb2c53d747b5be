/** A long list of which only pages are loaded, and only those that somebody looks at. */

export const PAGE = 60;
const AT_ONCE = 2;

export class Pages {
  /**
   * @param {(offset: number, limit: number) => Promise<import("../types").ItemsPage>} ask
   * @param {(page: import("../types").ItemsPage|null, error: Error|null) => void} heard a page came, or did not
   */
  constructor(ask, heard) {
    this._ask = ask;
    this._heard = heard;
    this._turn = 0;
    this.clear();
  }

  /** Another list. */
  clear() {
    this.matching = 0;
    /** @type {Map<number, import("../types").Item[]>} */
    this._loaded = new Map();
    this.renew();
  }

  /** The same list, which may have changed: what was loaded is shown until it comes anew. */
  renew() {
    this._turn++;
    this._fresh = new Set();
    this._loading = new Set();
    this.failed = false;
  }

  /** Whether there is nothing to show because it is still to come. */
  get waits() {
    return !this.failed && !this._fresh.size;
  }

  /** @param {number} index @returns {import("../types").Item|null} null while it is not loaded */
  item(index) {
    return this._loaded.get(Math.floor(index / PAGE))?.[index % PAGE] ?? null;
  }

  /** @param {number} index @param {import("../types").Item} item */
  replace(index, item) {
    const page = this._loaded.get(Math.floor(index / PAGE));
    if (page) page[index % PAGE] = item;
  }

  /**
   * Loads what is not there yet; as soon as a page came, it is to be asked again for what is then seen.
   * @param {number} first index
   * @param {number} last index behind
   */
  need(first, last) {
    for (let page = Math.floor(first / PAGE); page * PAGE < Math.max(last, 1); page++) {
      if (this.failed || this._loading.size >= AT_ONCE) return;
      if (!this._fresh.has(page) && !this._loading.has(page)) this._load(page);
    }
  }

  async _load(page) {
    const turn = this._turn;
    this._loading.add(page);
    try {
      const answer = await this._ask(page * PAGE, PAGE);
      if (turn !== this._turn) return;
      this._loading.delete(page);
      this._fresh.add(page);
      this._loaded.set(page, answer.items);
      this.matching = answer.matching;
      this._heard(answer, null);
    } catch (error) {
      if (turn !== this._turn) return;
      this._loading.delete(page);
      this.failed = true;
      this._heard(null, error);
    }
  }
}

/** Pictures that wait to be loaded: a few at a time, so that the server has an ear for other questions. */

const AT_ONCE = 3;

export class Thumbnails {
  constructor() {
    /** @type {Map<any, string>} by element; the last to come is the first to go, for it is what is seen now */
    this._waiting = new Map();
    /** @type {Map<any, () => void>} */
    this._loading = new Map();
  }

  /**
   * @param {any} image an img element
   * @param {string} url
   */
  want(image, url) {
    this.forget(image);
    this._waiting.set(image, url);
    this._next();
  }

  /** @param {any} image that is no longer seen */
  forget(image) {
    this._waiting.delete(image);
    this._loading.get(image)?.();
    image.removeAttribute("src");
  }

  _next() {
    while (this._loading.size < AT_ONCE && this._waiting.size) {
      const [image, url] = [...this._waiting].at(-1);
      this._waiting.delete(image);
      const ended = () => {
        image.removeEventListener("load", ended);
        image.removeEventListener("error", ended);
        this._loading.delete(image);
        this._next();
      };
      this._loading.set(image, ended);
      image.addEventListener("load", ended);
      image.addEventListener("error", ended);
      image.src = url;
    }
  }
}

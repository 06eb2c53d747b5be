/** Files on their way into a dataset: from what was dropped or chosen to portions that are sent one after the other. */

const CAPTION_ENDINGS = [".txt", ".caption"];
const ENDINGS = [".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif", ...CAPTION_ENDINGS];
/** Of a portion, so that a failure loses little. */
const FILES_MOST = 50;
const BYTES_MOST = 64 * 2 ** 20;
const NAME_MOST = 120;

/** @typedef {{isFile: boolean, isDirectory: boolean, name: string, file: any, createReader: any}} Entry */

/**
 * What is dropped; to be called while the event is handled, for afterwards the browser forgets it.
 * @param {DataTransfer|null} transfer
 * @returns {{entries: Entry[], files: File[]}}
 */
export function dropped(transfer) {
  const items = [...(transfer?.items ?? [])].filter((item) => item.kind === "file");
  const entries = items.map((item) => /** @type {any} */ (item.webkitGetAsEntry?.())).filter(Boolean);
  return { entries, files: entries.length ? [] : [...(transfer?.files ?? [])] };
}

/**
 * @param {{entries: Entry[], files: File[]}} drop
 * @returns {Promise<{files: File[], folder: string}>} also those inside folders, by their names alone; the first folder's name
 */
export async function filesOf({ entries, files }) {
  const found = [...files];
  const read = async (entry) => {
    if (entry.name.startsWith(".")) return;
    if (entry.isFile) found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else for (const inner of await entriesIn(entry)) await read(inner);
  };
  for (const entry of entries) await read(entry);
  return { files: found, folder: entries.find((entry) => entry.isDirectory)?.name ?? "" };
}

/** A reader gives a folder's entries by the hundred. */
async function entriesIn(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found.sort((a, b) => (a.name < b.name ? -1 : 1));
    found.push(...some);
  }
}

/**
 * @param {File[]} files
 * @returns {{taken: File[], left: string[], twice: string[]}} to be sent; names that are neither pictures nor captions, and
 *   names that came before
 */
export function sorted(files) {
  const seen = new Set();
  /** @type {{taken: File[], left: string[], twice: string[]}} */
  const made = { taken: [], left: [], twice: [] };
  for (const file of files) {
    if (!ENDINGS.some((ending) => file.name.toLowerCase().endsWith(ending))) made.left.push(file.name);
    else if (seen.has(file.name)) made.twice.push(file.name);
    else {
      seen.add(file.name);
      made.taken.push(file);
    }
  }
  // Each picture right before its caption: the server takes none whose picture it refused.
  const order = ({ name }) => [stemOf(name), isCaption(name) ? 1 : 0];
  made.taken.sort((a, b) => {
    const [[stem, place], [other, others]] = [order(a), order(b)];
    return stem === other ? place - others : stem < other ? -1 : 1;
  });
  return made;
}

const stemOf = (name) => name.slice(0, name.lastIndexOf("."));
const isCaption = (name) => CAPTION_ENDINGS.some((ending) => name.toLowerCase().endsWith(ending));

/** @param {File[]} files @returns {number} */
export const bytesOf = (files) => files.reduce((sum, file) => sum + file.size, 0);

/** @param {File[]} files @returns {File[][]} */
export function portions(files) {
  /** @type {File[][]} */
  const made = [];
  let bytes = 0;
  for (const file of files) {
    const last = made.at(-1);
    const belongs = last && isCaption(file.name) && stemOf(/** @type {File} */ (last.at(-1)).name) === stemOf(file.name);
    if (last && (belongs || (last.length < FILES_MOST && bytes + file.size <= BYTES_MOST))) last.push(file);
    else {
      made.push([file]);
      bytes = 0;
    }
    bytes += file.size;
  }
  return made;
}

/** @param {string} name @returns {boolean} whether the server takes it as a dataset's */
export function isDatasetName(name) {
  const parts = name.split("/");
  const fits = (part) => part && part.trim() === part && !part.startsWith(".") && part.length <= NAME_MOST;
  return parts.length <= 2 && parts.every((part) => fits(part) && !/[\\:\0]/.test(part));
}

/**
 * @param {string} folder that was dropped; may be empty
 * @param {string[]} names of datasets that there are
 * @returns {string} for a new dataset
 */
export function proposed(folder, names) {
  const base =
    folder
      .replace(/[\\:/\0]/g, " ")
      .replace(/^[.\s]+|\s+$/g, "")
      .slice(0, NAME_MOST - 4) || "dataset";
  if (folder || !names.includes(base)) return base;
  for (let number = 2; ; number++) if (!names.includes(`${base}-${number}`)) return `${base}-${number}`;
}

/**
 * Sends files in portions. What was written stays where a later portion fails.
 * @param {import("./api.js").Routes} routes
 * @param {string} name of the dataset
 * @param {File[]} files
 * @param {{replace: boolean, signal: AbortSignal, told: (bytes: number) => void}} how
 * @returns {Promise<{written: string[], refused: {name: string, why: string}[], error: any}>}
 */
export async function send(routes, name, files, { replace, signal, told }) {
  /** @type {{written: string[], refused: {name: string, why: string}[], error: any}} */
  const result = { written: [], refused: [], error: null };
  let before = 0;
  for (const portion of portions(files)) {
    const size = bytesOf(portion);
    try {
      signal.throwIfAborted();
      const part = await routes.sendFiles(name, portion, {
        replace,
        signal,
        // The form around the files counts, too.
        told: (bytes) => told(before + Math.min(bytes, size)),
      });
      result.written.push(...part.written);
      result.refused.push(...part.refused);
    } catch (error) {
      return { ...result, error };
    }
    before += size;
    told(before);
  }
  return result;
}

/** Elements of the page. Whatever is shown goes in as text: captions, prompts and file names are anybody's. */

/**
 * @param {string} tag "div", or with classes "div.scion-row.scion-tight"
 * @param {Record<string, any>} [given] attributes; `on` holds listeners, `text` the content, false or null leave out
 * @param {(Node|string|null|undefined|false)[]} children strings become text
 * @returns {any}
 */
export function element(tag, given = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = String(value);
    else if (key === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children) if (child || child === "") made.append(child);
  return made;
}

/**
 * Changes a text only where it differs, so that nothing is laid out or read aloud anew for nothing.
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * @param {Element} node
 * @param {boolean} shown
 */
export function show(node, shown) {
  node.toggleAttribute("hidden", !shown);
}

/**
 * The style sheet that lies beside the scripts, once.
 * @param {string} name file in web/css
 */
export function styleSheet(name) {
  const href = new URL(`../../css/${name}`, import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return;
  if (document.head.querySelector(`link[href="${CSS.escape(href)}"]`)) return;
  document.head.append(element("link", { rel: "stylesheet", href }));
}

/** The lists of files that nodes offer. */

/**
 * Asks the server for them anew. The reload key's own function tells of itself in two notices, which nobody asked for here.
 * @param {any} app the host's
 */
export async function refreshLists(app) {
  await (app.reloadNodeDefs ? app.reloadNodeDefs() : app.refreshComboInNodes?.());
}

/** Which widgets do nothing beside the others, by the server's rules. */

/** Texts are compared as the server reads them. */
const plain = (value) => (typeof value === "string" ? value.trim() : value);

/**
 * @param {import("../types").IdleCondition} condition
 * @param {(condition: import("../types").IdleCondition) => unknown} read undefined where nothing is known
 */
function holds(condition, read) {
  const value = plain(read(condition));
  if (value === undefined) return false;
  if (condition.input) return value === null;
  return condition.among ? condition.among.includes(value) : !condition.other?.includes(value);
}

/**
 * @param {import("../types").IdleRule[]} rules of one node
 * @param {(condition: import("../types").IdleCondition) => unknown} read what a condition asks for: a widget's value, or
 *   what is wired into an input (null: nothing); undefined where that is not known
 * @returns {Map<string, {grey: boolean, rules: import("../types").IdleRule[]}>} by widget, of those that do nothing. One
 *   that is not grey holds a value that would be refused, and has to be set back
 */
export function idleWidgets(rules, read) {
  const found = new Map();
  for (const rule of rules) {
    if (!rule.when.every((condition) => holds(condition, read))) continue;
    const grey = rule.idle === null || rule.idle.includes(plain(read({ widget: rule.widget })));
    const before = found.get(rule.widget);
    found.set(rule.widget, { grey: grey && (before?.grey ?? true), rules: [...(before?.rules ?? []), rule] });
  }
  return found;
}

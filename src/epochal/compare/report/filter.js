// The filter: words that must be in a run, comparisons (depth>8, val/accuracy>=90%, model=resnet*), `or`, `not`, brackets.

const COMPARISONS = {
  ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "=": (a, b) => a === b, "!=": (a, b) => a !== b,
};

/** The words, operators and brackets of a filter. */
function tokens(text) {
  return [...text.matchAll(/"([^"]*)"?|([()])|(>=|<=|!=|=|>|<)|([^\s()<>=!"]+|!)/g)].map(([whole, quoted, bracket, operator]) =>
    quoted !== undefined ? {word: quoted} : bracket ? {bracket} : operator ? {operator} : {word: whole, bare: whole.toLowerCase()});
}

/** A function of a run, and what is wrong with the filter, if anything. */
function parseFilter(text) {
  const left = tokens(text), problems = [];
  const at = (bare) => left.length && left[0].bare === bare;

  function either() {
    const parts = [both()];
    while (at("or")) { left.shift(); parts.push(both()); }
    return (run) => parts.some((part) => part(run));
  }
  function both() {
    const parts = [];
    while (left.length && !at("or") && left[0].bracket !== ")") {
      if (at("and")) left.shift(); else parts.push(single());
    }
    return (run) => parts.every((part) => part(run));
  }
  function single() {
    if (at("not")) { left.shift(); const part = left.length ? single() : () => false; return (run) => !part(run); }
    const token = left.shift();
    if (token.bracket === "(") { const inner = either(); if (left.length) left.shift(); return inner; }
    if (!("word" in token)) { problems.push(`${token.operator || token.bracket} stands alone.`); return () => true; }
    if (left.length && left[0].operator) {
      const {operator} = left.shift();
      if (!left.length || !("word" in left[0])) { problems.push(`${token.word}${operator} needs a value.`); return () => true; }
      return comparison(token.word, operator, left.shift().word, problems);
    }
    const word = token.word.toLowerCase();
    return (run) => haystack(run).includes(word);
  }

  const parts = [either()];
  while (left.length) { if (left[0].bracket === ")") left.shift(); else parts.push(either()); }
  return {test: (run) => parts.every((part) => part(run)), problem: problems.join(" ")};
}

const plainName = (name) => name.toLowerCase().replace(/[\s_]+/g, " ");

/** The metrics, costs and keys that a word may stand for: val/accuracy, depth for model.depth, lr. */
function meant(word) {
  const wanted = plainName(word), all = [...new Set([...Object.keys(data.names), ...Object.keys(data.common)])];
  const ways = [
    (name) => plainName(name) === wanted,
    (name) => [info(name).title, info(name).short].some((text) => plainName(text) === wanted),
    (name) => plainName(name.split(/[./]/).at(-1)) === wanted,
  ];
  return ways.map((way) => all.filter(way)).find((found) => found.length) || [];
}

/** 90 %, 10k and 1,000 as numbers. */
function asNumber(text) {
  const found = /^(-?[\d.,]+(?:e[-+]?\d+)?)([%kMGT]?)$/i.exec(text.trim());
  if (!found) return NaN;
  return Number(found[1].replaceAll(",", "")) * ({"%": 0.01, k: 1e3, m: 1e6, g: 1e9, t: 1e12}[found[2].toLowerCase()] || 1);
}

function comparison(word, operator, text, problems) {
  const compare = COMPARISONS[operator], wanted = text.toLowerCase(), number = asNumber(text);
  const same = new RegExp(`^${wanted.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*")}$`, "su");
  const names = ["status", "run", "name"].includes(word.toLowerCase()) ? [word.toLowerCase()] : meant(word);
  if (!names.length) problems.push(`No run has a value ${word}.`);
  const one = (run, name) => {
    const found = name === "status" ? run.status : name === "run" || name === "name" ? run.name : value(run, name);
    if (found === undefined) return operator === "!=";
    if (typeof found === "number" && !Number.isNaN(number)) {
      const scaled = isPercent(name) && !text.endsWith("%") && Math.abs(number) > 1 ? number / 100 : number;
      return compare(found, scaled);
    }
    const shown = valueText(name, found).toLowerCase();
    if (operator === "=" || operator === "!=") return (same.test(shown) || same.test(String(found).toLowerCase())) === (operator === "=");
    return typeof found === "string" && compare(order(found, text), 0);
  };
  return (run) => names.some((name) => one(run, name));
}

const haystacks = new WeakMap();
/** The text of a run in which words are looked for. */
function haystack(run) {
  if (!haystacks.has(run)) {
    const cells = data.columns.map((name) => { const text = valueText(name, value(run, name)); return `${text}\n${info(name).short} ${text}`; });
    haystacks.set(run, [run.name, run.label, run.status, run.error || "", ...cells].join("\n").toLowerCase());
  }
  return haystacks.get(run);
}

/** The runs that the filter and the status let through, in the order of the data. */
function filtered() {
  const {test, problem} = parseFilter(state.filter);
  $("filter-problem").textContent = problem;
  return data.runs.filter((run) => (!state.status || run.status === state.status) && test(run));
}

const tickedRuns = () => data.runs.filter((run) => state.ticked.has(run.name));

/** The runs that plots show: those that are ticked, or else those that the filter lets through. */
function selected() {
  const ticked = tickedRuns();
  const found = filtered(), all = state.filter || state.status || !data.runs.some((run) => run.drawn);
  return ticked.length ? ticked : found.filter((run) => all || run.drawn); // of an experiment, those of its own design
}

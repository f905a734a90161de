// The numbers of a plot: groups of runs, their learning curves, means and spreads, as rows for Vega-Lite.

const MAX_POINTS = 200; // of a curve that is drawn
const MAX_LINES = 60; // curves of single runs in one plot; with more, only their bands are drawn
const MARKS = 6; // on a curve
const FLOPS_OF_TRAINING = 3; // forward and backward, for each of one forward pass

const AGGREGATES = {
  range: "mean, lowest to highest", std: "mean ± standard deviation", median: "median and quartiles",
  best: "best run", runs: "every run",
};

/** Groups of runs with the same values of some keys, in the order of these: {label, values, runs}. */
function groupRuns(runs, keys) {
  const groups = new Map();
  for (const run of runs) {
    const values = keys.map((key) => value(run, key)), id = JSON.stringify(values.map((found) => found ?? null));
    if (!groups.has(id)) groups.set(id, {values, label: label(keys, values), runs: []});
    groups.get(id).runs.push(run);
  }
  return [...groups.values()].sort((a, b) => {
    for (let i = 0; i < keys.length; i++) { const by = order(a.values[i], b.values[i]); if (by) return by; }
    return 0;
  });
}

const finished = (runs) => runs.filter((run) => run.status === "finished");
/** The finished runs; while there are none, those that have not failed, or all. */
const counted = (runs) => [finished(runs), runs.filter((run) => run.status !== "failed"), runs].find((found) => found.length) || [];

/** The learning curve of a metric, {xs, ys}, or null; an error is 1 - accuracy. */
function curve(run, y, x) {
  const find = (name) => run.curves.find((block) => name in block);
  const block = find(y) || (y.endsWith("/error") && find(y.replace(/error$/, "accuracy")));
  if (!block) return null;
  const ys = block[y] || block[y.replace(/error$/, "accuracy")].map((v) => v === null ? null : 1 - v);
  const flops = run.values.flops_at_mean_length || run.values.flops; // texts are padded only to the longest of a batch
  const xs = x === "training_flops" ? (block.examples || []).map((n) => n === null || !flops ? null : FLOPS_OF_TRAINING * flops * n) : block[x];
  if (!xs) return null;
  const kept = ys.map((_, i) => i).filter((i) => ys[i] !== null && xs[i] !== null && xs[i] !== undefined);
  return kept.length ? {xs: kept.map((i) => xs[i]), ys: kept.map((i) => ys[i])} : null;
}

/** Exponential moving average, corrected for its start; weight 0 leaves the values as they are. */
function smoothed(ys, weight) {
  if (!(weight > 0)) return ys;
  let sum = 0, total = 0;
  return ys.map((y) => { sum = weight * sum + (1 - weight) * y; total = weight * total + (1 - weight); return sum / total; });
}

const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
function std(values) {
  if (values.length < 2) return 0;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (values.length - 1));
}
function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b), at = q * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** The middle and the ends of the values of several runs. */
function spread(values, how, larger) {
  if (how === "median") return {y: quantile(values, 0.5), low: quantile(values, 0.25), high: quantile(values, 0.75)};
  if (how === "best") { const best = larger ? Math.max(...values) : Math.min(...values); return {y: best, low: best, high: best}; }
  const middle = mean(values), side = how === "std" ? std(values) : 0;
  return how === "std" ? {y: middle, low: middle - side, high: middle + side} : {y: middle, low: Math.min(...values), high: Math.max(...values)};
}

/** Evenly spread indices, the first and the last among them. */
function thinned(length, most) {
  if (length <= most) return [...Array(length).keys()];
  return [...new Set(Array.from({length: most}, (_, i) => Math.round(i * (length - 1) / (most - 1))))];
}

function interpolated(x, {xs, ys}) {
  let low = 0, high = xs.length - 1;
  if (x <= xs[0]) return ys[0];
  if (x >= xs[high]) return ys[high];
  while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] <= x) low = middle; else high = middle; }
  return ys[low] + (ys[high] - ys[low]) * (x - xs[low]) / (xs[high] - xs[low] || 1);
}

/** The x at which all curves have values. */
function sharedGrid(curves) {
  const first = Math.max(...curves.map(({xs}) => xs[0])), last = Math.min(...curves.map(({xs}) => xs.at(-1)));
  const grid = [...new Set(curves.flatMap(({xs}) => xs))].filter((x) => x >= first && x <= last).sort((a, b) => a - b);
  return thinned(grid.length, MAX_POINTS).map((i) => grid[i]);
}

const names = (runs) => runs.length > 3 ? [...runs.slice(0, 3).map((run) => run.name), `and ${runs.length - 3} more`] : runs.map((run) => run.name);

/** {means, singles, counts} of learning curves or profiles; `of` gives the curve of a run. */
function curveRows(groups, settings, of) {
  const all = groups.flatMap((group) => group.runs.map((run) => of(run))).filter(Boolean).length;
  const means = [], singles = [], counts = [], larger = largerIsBetter(settings.y);
  const lines = settings.aggregate === "runs" || all <= MAX_LINES;
  groups.forEach((group, number) => {
    const drawn = group.runs.map((run) => ({run, line: of(run)})).filter(({line}) => line)
      .map(({run, line}) => ({run, line: {xs: line.xs, ys: smoothed(line.ys, settings.smooth)}}));
    let used = counted(drawn.map(({run}) => run)).map((run) => drawn.find((entry) => entry.run === run));
    if (!used.length) return;
    if (settings.aggregate === "best") {
      const sign = larger ? -1 : 1;
      used = [used.reduce((best, entry) => sign * entry.line.ys.at(-1) < sign * best.line.ys.at(-1) ? entry : best)];
    }
    counts.push(used.length);
    if (settings.aggregate !== "runs") {
      const grid = sharedGrid(used.map(({line}) => line)), step = grid.length / MARKS;
      const marks = new Set(Array.from({length: MARKS}, (_, i) => Math.floor((i + 0.5) * step + number) % grid.length));
      grid.forEach((x, i) => {
        const values = used.map(({line}) => interpolated(x, line));
        means.push({series: group.label, x, ...spread(values, settings.aggregate, larger), n: values.length, marked: marks.has(i), runs: names(used.map(({run}) => run))});
      });
    }
    if (lines && (drawn.length > 1 || settings.aggregate === "runs"))
      for (const {run, line} of drawn) for (const i of thinned(line.xs.length, MAX_POINTS))
        singles.push({series: group.label, run: run.name, x: line.xs[i], y: line.ys[i]});
  });
  return {means, singles, counts};
}

/** {means, singles, counts} of final values: the mean at each x, and every run. */
function pointRows(groups, settings, bars) {
  const means = [], singles = [], counts = [], larger = largerIsBetter(settings.y), {x} = settings;
  const measured = "form" in info(x); // each run has a value of its own; runs that agree in all keys have one mean
  for (const group of groups) {
    const at = measured ? data.keys : x ? [x] : [];
    for (const point of groupRuns(counted(group.runs), at)) {
      const used = point.runs.map((run) => ({run, y: value(run, settings.y), x: !bars ? value(run, x) : x && !sameKey(settings.group, x) ? valueText(x, value(run, x)) : group.label}))
        .filter((entry) => typeof entry.y === "number" && entry.x !== undefined);
      if (!used.length) continue;
      for (const entry of used) singles.push({series: group.label, run: entry.run.name, x: entry.x, y: entry.y});
      if (settings.aggregate === "runs" && !bars) continue;
      const ys = used.map((entry) => entry.y);
      means.push({series: group.label, x: bars ? used[0].x : mean(used.map((entry) => entry.x)), ...spread(ys, settings.aggregate, larger), n: ys.length, runs: names(used.map((entry) => entry.run))});
      counts.push(ys.length);
    }
  }
  return {means, singles, counts};
}

const sameKey = (group, x) => group.length === 1 && group[0] === x;

/** What the marks mean. */
function caption(kind, settings, {means, singles, counts}) {
  if (!counts.length && !singles.length) return "None of these runs has these values.";
  const low = Math.min(...counts), high = Math.max(...counts), many = high > 1;
  const of = low === high ? plural(low, "run") : `${low} to ${plural(high, "run")}`;
  const whole = {range: "mean over", std: "mean over", median: "median of", best: "best of"}[settings.aggregate];
  const sides = {range: "lowest to highest", std: "one standard deviation", median: "the middle half"}[settings.aggregate];
  const smooth = settings.smooth > 0 ? ` Smoothed by ${settings.smooth}.` : "";
  if (settings.aggregate === "runs") return `Each run by itself.${smooth}`;
  if (kind === "curves" || kind === "profile") {
    if (settings.aggregate === "best") return `Line: the best run of each group.${smooth}`;
    if (!many) return `Line: a single run.${smooth}`;
    return `Line: ${whole} ${of}; band: ${sides}${singles.length ? "; thin lines: single runs" : ""}.${smooth}`;
  }
  const mark = kind === "bars" ? "Bar" : "Large marks";
  return `${mark}: ${whole} ${of}${many && sides ? `; whiskers: ${sides}` : ""}${many ? "; small marks: single runs" : ""}.`;
}

/** The best groups by their mean y, at most so many, in their own order. */
function bestGroups(groups, y, most) {
  if (groups.length <= most) return groups;
  const sign = largerIsBetter(y) ? -1 : 1;
  const rank = new Map(groups.map((group) => {
    const values = counted(group.runs).map((run) => value(run, y)).filter((found) => typeof found === "number");
    return [group, values.length ? sign * mean(values) : Infinity];
  }));
  const best = new Set([...groups].sort((a, b) => rank.get(a) - rank.get(b)).slice(0, most));
  return groups.filter((group) => best.has(group));
}

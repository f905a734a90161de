// A plot as a Vega-Lite specification, in the style of the figures that are written as files.

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => dark.matches && !state.paper; // a copied figure is on white
// Okabe and Ito's colours, darker or lighter until each has a contrast of 3 to the ground
const COLOURS = {
  light: ["#0072b2", "#d55e00", "#00875f", "#b8588f", "#2f8fc9", "#b07700", "#6f6f6f"],
  dark: ["#4fa8e8", "#f07f30", "#26b88a", "#d98fb8", "#8fcdf2", "#e6a92e", "#a8a8a8"],
};
const OPACITIES = [0.5, 0.25, 0.1]; // of neighbouring bars, as in figures.py
const DECADES = 1.5, MAX_DECADES = 12, MAX_BARS = 60;
const LEGEND_WIDTH = 62; // characters in a line of the legend of a copied figure

const spansDecades = (values) => {
  const found = values.filter(Number.isFinite), low = Math.min(...found);
  return found.length > 0 && low > 0 && Math.max(...found) > low * 10 ** DECADES;
};

/** Type, scale and axis of a numeric encoding, as `number_axis` in vega.py. */
function numberAxis(title, values, {percent = false, horizontal = false, log = false, ticksAtValues = false}) {
  const axis = {title, grid: !horizontal, tickCount: 5}, scale = {nice: !horizontal, padding: ticksAtValues ? 12 : horizontal ? 4 : 0};
  const positive = values.filter((v) => v > 0), top = Math.max(...values);
  if (percent) axis.format = "~%";
  else if (Math.max(0, ...values.map(Math.abs)) >= 10_000) axis.format = "~s";
  if (log && positive.length) {
    const low = Math.max(Math.min(...positive), top * 10 ** -MAX_DECADES);
    Object.assign(scale, {type: "log"}, horizontal ? {} : {nice: true, domainMin: low});
    const powers = [];
    for (let e = Math.ceil(Math.log10(low) - 1e-9); e <= Math.floor(Math.log10(top) + 1e-9); e++) powers.push(10 ** e);
    if (powers.length > 2) axis.values = powers.filter((_, i) => i % Math.ceil(powers.length / 7) === 0);
    if (powers.length > 4) axis.labelExpr = data.style.power;
  } else scale.zero = false;
  const different = [...new Set(values)].sort((a, b) => a - b);
  if (ticksAtValues && different.length <= 8) {
    let digits = 3;
    while (digits < 12 && new Set(different.map((v) => v.toPrecision(digits))).size < different.length) digits++;
    Object.assign(axis, {values: different, tickCount: different.length});
    const most = Math.max(digits, String(Math.round(Math.max(...different.map(Math.abs)))).length);
    axis.labelExpr = percent ? `format(100 * datum.value, '.${digits}~g') + ' %'`
      : axis.format ? `format(datum.value, '.${digits}~s')` : `format(datum.value, '.${most}~g')`;
  }
  return {type: "quantitative", scale, axis};
}

/** Colour follows the first key in which groups differ, dash and shape the rest, as `styles` in figures.py. */
function stylesOf(groups, keys) {
  const colours = COLOURS[isDark() ? "dark" : "light"], {shapes, dashes} = data.style;
  const differing = keys.map((_, i) => i).filter((i) => new Set(groups.map((group) => String(group.values[i]))).size > 1);
  const numbered = (values) => { const seen = new Map(); return values.map((v) => { if (!seen.has(v)) seen.set(v, seen.size); return seen.get(v); }); };
  const each = groups.map((_, i) => i);
  let first = each, rest = each;
  if (differing.length > 1) {
    first = numbered(groups.map((group) => String(group.values[differing[0]])));
    rest = numbered(groups.map((group) => JSON.stringify(differing.slice(1).map((i) => group.values[i] ?? null))));
    if (Math.max(0, ...first, ...rest) >= dashes.length) first = rest = each;
  }
  const shape = each.length <= shapes.length ? each : rest;
  return groups.map((group, i) => ({
    name: group.label, colour: colours[first[i] % colours.length], shape: shapes[shape[i] % shapes.length],
    dash: dashes[rest[i] % dashes.length], opacity: OPACITIES[i % OPACITIES.length], hollow: false,
  }));
}

/** The encodings that tell series apart. */
function scalesOf(series, legend) {
  const domain = series.map((s) => s.name), longest = Math.max(0, ...domain.map((name) => name.length));
  const shown = legend && domain.length > 1 ? {columns: Math.max(1, Math.min(domain.length, Math.floor(LEGEND_WIDTH / (longest + 6)))), labelLimit: 600, symbolOpacity: 1} : null;
  const scale = (range) => ({field: "series", type: "nominal", scale: {domain, range}, legend: shown});
  return {
    stroke: scale(series.map((s) => s.colour)), fill: scale(series.map((s) => s.hollow ? "transparent" : s.colour)),
    shape: scale(series.map((s) => s.shape)),
    // of a single number Vega makes a range from it to nothing
    fillOpacity: series.length === 1 ? {value: series[0].opacity} : {...scale(series.map((s) => s.opacity)), type: "ordinal", sort: domain, legend: null},
    // in the others' order, Vega-Lite would draw the legend's symbols dashed
    strokeDash: {...scale([]), scale: {domain: [...domain].reverse(), range: series.map((s) => s.dash).reverse()}, legend: null},
  };
}

/** Everything to draw a plot: {kind, spec, datasets, series, caption, points, rows}. */
function makeFigure(settings) {
  const kind = kindOf(settings);
  if (kind === "parallel") return parallelFigure(settings);
  const of = settings.of && new Set(settings.of);
  let runs = selected().filter((run) => !of || of.has(run.name));
  if (kind !== "curves" && kind !== "profile") runs = counted(runs);
  const has = (run) => kind === "curves" ? curve(run, settings.y, settings.x) : kind === "profile" ? run.profiles[settings.y] : value(run, settings.y) !== undefined;
  const all = groupRuns(runs.filter(has), settings.group), most = kind === "bars" ? MAX_BARS : data.style.series;
  const groups = bestGroups(all, settings.y, most), series = stylesOf(groups, settings.group);
  const found = kind === "curves" ? curveRows(groups, settings, (run) => curve(run, settings.y, settings.x))
    : kind === "profile" ? curveRows(groups, settings, profileCurve(settings.y)) : pointRows(groups, settings, kind === "bars");
  const left = groups.length < all.length ? ` The best ${groups.length} of ${all.length} groups are drawn.` : "";
  const references = referenceRows(settings, kind, series);
  const laws = settings.laws.flatMap(({line}, law) => line.map(([x, y]) => ({law, x, y})));
  const said = settings.laws.map(({says, line}) => ` ${line.length ? "Dashed: " : ""}${says}`).join("");
  const titles = titlesOf(settings, kind, runs);
  const datasets = Object.fromEntries(Object.entries({means: found.means, singles: found.singles, references, laws}).filter(([, rows]) => rows.length));
  const layers = (kind === "bars" ? barLayers : lineLayers)(settings, kind, found, references, series, titles).filter((layer) => layer.data.name in datasets);
  const rows = found.means.length ? [...found.means, ...references] : found.singles;
  return {
    kind, series, datasets, rows, titles, caption: caption(kind, settings, found) + left + said,
    spec: {description: "", layer: layers.length ? layers : [{mark: "point", data: {values: []}, encoding: {}}]},
    points: [...found.singles, ...found.means.filter((row) => row.n > 1 || !found.singles.length || kind === "curves"), ...references],
  };
}

const profileCurve = (name) => (run) => {
  const profile = run.profiles[name];
  if (!profile) return null;
  const largest = Math.max(...profile[3]), floor = profile[3].every((v) => v >= 0) && largest > 0 ? largest * 10 ** -(MAX_DECADES + 3) : -Infinity;
  return {xs: profile[2], ys: profile[3].map((v) => Math.max(v, floor))};
};

function titlesOf(settings, kind, runs) {
  const profile = kind === "profile" && runs.map((run) => run.profiles[settings.y]).find(Boolean);
  if (profile) return {x: profile[0], y: profile[1]};
  const x = settings.x === "training_flops" ? "training FLOPs" : settings.x ? info(settings.x).title : "";
  return {x, y: info(settings.y).title};
}

function referenceRows(settings, kind, series) {
  const has = ([key, value]) => (settings.where || []).some((pair) => pair[0] === key && pair[1] === value);
  const found = data.references.filter((entry) => entry.x === settings.x && entry.y === settings.y && entry.where.every(has));
  const colours = isDark() ? ["#b5b5b5", "#8c8c8c"] : ["#6a6a6a", "#858585"];
  return found.flatMap((entry, i) => {
    series.push({name: entry.label, colour: colours[i % 2], shape: data.style.shapes[i % data.style.shapes.length], dash: [3, 3], opacity: 0.85, hollow: true});
    return entry.points.map(([x, y]) => ({series: entry.label, x: kind === "bars" ? valueText(settings.x, x) : x, y, low: y, high: y, n: 0, runs: ["reference"]}));
  });
}

function axesOf(settings, kind, found, references, titles) {
  const rows = [...found.means, ...found.singles, ...references], points = kind === "points";
  const ys = rows.flatMap((row) => [row.y, row.low ?? row.y, row.high ?? row.y]);
  const bounded = isPercent(settings.y) && largerIsBetter(settings.y);
  const logY = settings.log_y === "auto" ? kind !== "bars" && !bounded && spansDecades(ys) : settings.log_y === "on" && ys.some((y) => y > 0);
  const y = numberAxis(titles.y, ys, {percent: isPercent(settings.y), log: logY});
  if (kind === "points") y.scale.padding = 8; // whole marks at the ends of the axis
  if (kind === "bars") return {y};
  const xs = rows.map((row) => row.x), positive = xs.length > 0 && Math.min(...xs) > 0;
  const logX = settings.log_x === "auto" ? positive && (data.style.log_keys.includes(settings.x) || (points && spansDecades(xs))) : settings.log_x === "on" && positive;
  return {y, x: numberAxis(titles.x, xs, {percent: points && isPercent(settings.x), horizontal: true, log: logX, ticksAtValues: points})};
}

const opacity = (settings, full) => settings.only.length
  ? {condition: {test: {field: "series", oneOf: settings.only}, value: full}, value: full / 10} : {value: full};

function lineLayers(settings, kind, found, references, series, titles) {
  const {x, y} = axesOf(settings, kind, found, references, titles), scales = scalesOf(series, settings.legend);
  const {stroke, strokeDash, fill, shape} = scales, filled = {stroke, fill, shape};
  const layer = (name, mark, full, encoding) => ({
    data: {name}, mark: {clip: true, ...mark}, encoding: {x: {field: "x", ...x}, y: {field: "y", ...y}, opacity: opacity(settings, full), ...encoding},
  });
  const between = {y: {field: "low", ...y}, y2: {field: "high"}};
  const behind = kind === "points" ? [
    layer("means", {type: "rule", strokeWidth: 1.2}, 1, {stroke, ...between}),
    layer("singles", {type: "point", size: found.means.length ? 20 : 50}, found.means.length ? 0.45 : 1, filled),
  ] : [
    layer("means", {type: "area"}, 0.16, {fill, ...between}),
    layer("singles", {type: "line", strokeWidth: found.means.length ? 0.6 : 1.4}, found.means.length ? 0.45 : 1, {stroke, detail: {field: "run"}}),
  ];
  const mark = layer("means", {type: "point", size: 50}, 1, filled);
  if (kind !== "points") mark.transform = [{filter: "datum.marked"}];
  const lines = layer("means", {type: "line", strokeWidth: 1.8}, 1, {stroke, strokeDash});
  const law = layer("laws", {type: "line", strokeWidth: 1.6, strokeDash: [5, 3], color: isDark() ? "#e4e8ee" : "#1c2128"}, 1, {detail: {field: "law"}});
  const layers = [
    ...behind, ...(kind === "points" && settings.laws.length ? [law] : [lines, law]), // the law in place of lines between points
    layer("references", {type: "line", strokeWidth: 1.2}, 1, {stroke, strokeDash}), mark, layer("references", {type: "point", size: 45}, 1, filled),
  ];
  const zoom = {name: "zoom", select: {type: "interval", zoom: "wheel![event.ctrlKey || event.shiftKey]"}, bind: "scales"};
  const first = layers.find((one) => one.data.name === (found.means.length ? "means" : "singles"));
  if (first && !settings.still) first.params = [zoom];
  return layers;
}

function barLayers(settings, kind, found, references, series, titles) {
  const {y} = axesOf(settings, kind, found, references, titles), scales = scalesOf(series, settings.legend);
  const places = [...new Set([...found.means, ...references].map((row) => row.x))], alone = found.means.every((row) => row.x === row.series);
  if (!y.scale.type) y.scale = {zero: true};
  const slanted = places.join("").length > 45;
  const x = {field: "x", type: "nominal", sort: places, axis: {title: settings.x ? titles.x : null, ...(slanted ? {labelAngle: -35, labelLimit: 160, labelOverlap: false} : {labelAngle: 0})}};
  const beside = alone ? {} : {xOffset: {field: "series", sort: series.map((s) => s.name)}};
  const pick = (...channels) => Object.fromEntries(channels.map((channel) => [channel, scales[channel]]));
  const layer = (name, mark, encoding) => ({data: {name}, mark, encoding: {x, y: {field: "y", ...y}, ...beside, ...encoding}});
  const bar = {...pick("stroke", "fill"), fillOpacity: settings.only.length ? {condition: {test: {field: "series", oneOf: settings.only}, value: 0.5}, value: 0.1} : scales.fillOpacity};
  return [
    layer("means", {type: "bar"}, bar), layer("means", {type: "rule"}, {y: {field: "low", ...y}, y2: {field: "high"}}),
    layer("singles", {type: "point", size: 18, filled: false}, pick("stroke", "shape")),
    layer("references", {type: "point", size: 45}, pick("stroke", "fill", "shape")),
  ];
}

/** Parallel coordinates: an axis for each key, a line for each run, its colour the value on the last axis. */
function parallelFigure(settings) {
  const runs = selected().filter((run) => run.status !== "failed"), rows = [], ticks = [];
  const keys = settings.keys.filter((key) => runs.some((run) => value(run, key) !== undefined));
  const last = keys.at(-1), scaled = new Map();
  keys.forEach((key, number) => {
    const used = runs.filter((run) => value(run, key) !== undefined), values = used.map((run) => value(run, key));
    const axis = `${number + 1}. ${info(key).short}`;
    if (isNumeric(key, runs)) {
      const log = spansDecades(values), scale = log ? Math.log : (v) => v, low = scale(Math.min(...values)), high = scale(Math.max(...values));
      for (const v of values) scaled.set(`${number} ${v}`, high > low ? (scale(v) - low) / (high - low) : 0.5);
      ticks.push({axis, v: 0, text: valueText(key, Math.min(...values))});
      if (high > low) ticks.push({axis, v: 1, text: valueText(key, Math.max(...values))});
    } else {
      const different = [...new Set(values)].sort(order);
      different.forEach((v, i) => {
        scaled.set(`${number} ${v}`, different.length > 1 ? i / (different.length - 1) : 0.5);
        if (different.length <= 8) ticks.push({axis, v: different.length > 1 ? i / (different.length - 1) : 0.5, text: valueText(key, v)});
      });
    }
    for (const run of used) rows.push({axis, run: run.name, x: axis, y: scaled.get(`${number} ${value(run, key)}`), text: `${info(key).short}: ${valueText(key, value(run, key))}`});
  });
  const shade = new Map(runs.map((run) => [run.name, last === undefined ? 0.5 : scaled.get(`${keys.length - 1} ${value(run, last)}`) ?? null]));
  for (const row of rows) row.shade = shade.get(row.run);
  const order_ = keys.map((key, number) => `${number + 1}. ${info(key).short}`);
  const x = {field: "axis", type: "ordinal", sort: order_, axis: {title: null, labelAngle: 0, labelExpr: "replace(datum.label, regexp('^[0-9]+. '), '')", labelLimit: 110, labelOverlap: false, domain: false, ticks: false}, scale: {type: "point", padding: 0.35}};
  const y = {field: "y", type: "quantitative", axis: null, scale: {domain: [0, 1], padding: 8}};
  const colour = {field: "shade", type: "quantitative", legend: null, scale: {domain: [0, 1], range: isDark() ? ["#f0b840", "#e2709a", "#6cb6ff"] : ["#b07700", "#b8407f", "#0062a3"]}};
  const ink = isDark() ? "#e4e8ee" : "#1c2128", paper = isDark() ? "#181d24" : "#ffffff";
  const tick = {text: {field: "text"}, y: {...y, field: "v"}, x};
  return {
    kind: "parallel", series: [], rows, titles: {x: "axis", y: "value"}, points: rows, datasets: {rows, ticks},
    caption: keys.length < 2 ? "Choose at least two values for the axes." : `A line for each of ${plural(runs.length, "run")} that did not fail; its colour follows ${info(last).title}. Wide ranges are logarithmic.`,
    spec: {description: "", layer: keys.length < 2 ? [{mark: "point", data: {values: []}, encoding: {}}] : [
      {data: {name: "ticks"}, mark: {type: "rule", color: "#8a8f98"}, encoding: {x}},
      {data: {name: "rows"}, mark: {type: "line", strokeWidth: 1.3}, encoding: {x, y, detail: {field: "run"}, stroke: colour, opacity: {value: runs.length > 100 ? 0.4 : 0.8}}},
      {data: {name: "ticks"}, mark: {type: "text", fontSize: 11, align: "left", dx: 5, stroke: paper, strokeWidth: 3}, encoding: tick},
      {data: {name: "ticks"}, mark: {type: "text", fontSize: 11, align: "left", dx: 5, color: ink}, encoding: tick},
    ]},
  };
}

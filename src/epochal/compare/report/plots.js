// The cards of the plots: the drawing, what can be chosen, the nearest point, the legend, the numbers, copies.

const DEFAULTS = {log_x: "auto", log_y: "auto", smooth: 0, only: []};
const NEAR = 60; // pixels from a point at which its values are shown
const MAX_ROWS = 400; // of the table behind a plot
const LOGS = {auto: "automatic", on: "logarithmic", off: "linear"};

/** The plots that are shown: {from, ...changes} each. */
const entries = () => state.plots || data.plots.map((_, from) => ({from}));

function settingsOf(entry) {
  const base = entry.from === null || !data.plots[entry.from] ? {x: "step", y: data.sort.key, group: data.keys, of: null} : data.plots[entry.from];
  const settings = {...DEFAULTS, keys: [...data.keys, data.sort.key], ...base, ...entry};
  const kind = kindOf(settings);
  settings.aggregate = AGGREGATES[entry.aggregate] ? entry.aggregate : kind === "curves" || kind === "profile" ? "range" : "std";
  const same = settings.heading && settings.x === base.x && settings.y === base.y;
  settings.laws = same && settings.laws || []; // of all runs that count, whichever are shown
  settings.heading = same ? settings.heading : kind === "parallel" ? "Parallel coordinates" : headingOf(settings);
  return settings;
}

function headingOf({x, y, group}) {
  const by = x ? [x === "training_flops" ? "training FLOPs" : info(x).title] : group.length ? group.map((key) => info(key).title) : ["run"];
  const words = `${info(y).title} by ${by.join(" and ")}`;
  return words[0].toUpperCase() + words.slice(1);
}

function kindOf({x, y}) {
  if (x === "parallel") return "parallel";
  if (!x && data.runs.some((run) => y in run.profiles)) return "profile";
  if (AXES.includes(x)) return "curves";
  return x && isNumeric(x) ? "points" : "bars";
}

function change(number, changes) {
  state.plots = entries().map((entry, i) => i === number ? {...entry, ...changes} : entry);
  draw();
}

function addPlot() {
  state.plots = [...entries(), {from: null, x: "parallel"}];
  draw();
  $("plots").lastElementChild.querySelector("summary").focus();
}

function removePlot(number) {
  state.plots = entries().filter((_, i) => i !== number);
  draw();
  $("add-plot").focus();
}

function themed(config) {
  const larger = {labelFontSize: 12, titleFontSize: 13};
  const theme = {...config, background: "transparent", axis: {...config.axis, ...larger}};
  if (!isDark()) return theme;
  const ink = {labelColor: "#c3cbd6", titleColor: "#e4e8ee"};
  return {...theme, axis: {...theme.axis, ...ink, gridColor: "#2c343f", domainColor: "#6b7684", tickColor: "#6b7684"}, rule: {color: "#c3cbd6"}};
}

// ---- cards ----

function drawPlots() {
  const shown = entries();
  if (changed("cards", shown.length)) {
    state.views.forEach((view) => view && view.finalize());
    state.views = [];
    state.figures = [];
    state.queue = [];
    Object.keys(state.drawn).filter((part) => part.startsWith("plot ")).forEach((part) => delete state.drawn[part]);
    $("plots").replaceChildren(...shown.map((_, number) => card(number)));
  }
  shown.forEach((entry, number) => drawPlot(number, settingsOf(entry)));
  $("reset-plots").hidden = !state.plots;
}

function card(number) {
  const button = (text, onclick) => element("button", {type: "button", onclick}, text);
  const made = element("figure", {class: "card"},
    element("h2", {}),
    element("div", {class: "frame"},
      element("div", {class: "plot", role: "img", tabindex: 0}),
      element("div", {class: "ring", hidden: true}), element("div", {class: "tip", role: "status", hidden: true})),
    element("div", {class: "legend", role: "group", "aria-label": "Single out"}),
    element("figcaption", {class: "soft"}),
    element("div", {class: "tools"},
      element("details", {class: "choices"}, element("summary", {}, "Change"), form(number)),
      element("details", {class: "numbers", ontoggle: () => drawNumbers(number)}, element("summary", {}, "Data"),
        element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Data of the plot"},
          element("table", {}, element("caption", {}), element("thead", {}), element("tbody", {})))),
      element("details", {class: "copies"}, element("summary", {}, "Copy"), element("div", {class: "row"},
        button("Copy SVG", () => copyFigure(number, "svg", copy)), button("Copy PNG", () => copyFigure(number, "png", copy)),
        button("Save SVG", () => copyFigure(number, "svg", save)), button("Save PNG", () => copyFigure(number, "png", save)),
        button("Remove plot", () => removePlot(number))))));
  const box = made.querySelector(".plot");
  box.addEventListener("pointermove", (event) => showNearest(number, event));
  box.addEventListener("pointerdown", (event) => showNearest(number, event));
  box.addEventListener("pointerleave", () => hideTip(number));
  box.addEventListener("blur", () => hideTip(number));
  box.addEventListener("keydown", (event) => stepThrough(number, event));
  return made;
}

function form(number) {
  const select = (name, text) => element("label", {}, text, element("select", {name, onchange: (event) => change(number, {[name]: event.target.value})}));
  const smooth = element("input", {type: "range", name: "smooth", min: 0, max: 0.99, step: 0.01, oninput: (event) => change(number, {smooth: Number(event.target.value)})});
  return element("div", {class: "form"},
    select("y", "Value"), select("x", "Against"), select("aggregate", "Of a group"), select("log_x", "x axis"), select("log_y", "y axis"),
    element("label", {class: "smooth"}, "Smoothing", smooth),
    element("fieldset", {class: "group"}, element("legend", {}, "Group by"), element("div", {})),
    element("fieldset", {class: "keys"}, element("legend", {}, "Axes, the last one gives the colour"), element("div", {})));
}

/** Names that can be chosen: keys in which runs differ, metrics and costs that any run has. */
function choosable() {
  const keys = [...new Set([...data.keys, ...data.runs.flatMap((run) => Object.keys(run.config))])].filter((key) => !/(^|\.)_|^(output_dir|requested\.|hydra\.)/.test(key));
  const values = [...new Set(data.runs.flatMap((run) => Object.keys(run.values)))];
  const metrics = values.filter((name) => name.includes("/")).sort(), costs = values.filter((name) => !name.includes("/"));
  const logged = new Set(data.runs.flatMap((run) => run.curves.flatMap((block) => Object.keys(block))));
  const curves = [...logged].filter((name) => name.includes("/")).sort();
  return {keys, metrics: [...new Set([...metrics, ...curves])], costs, numbers: [...keys.filter((key) => isNumeric(key)), ...costs, ...metrics], profiles: [...new Set(data.runs.flatMap((run) => Object.keys(run.profiles)))]};
}

const option = (name, text = info(name).title) => element("option", {value: name}, text);
const optgroup = (text, names) => names.length ? element("optgroup", {label: text}, ...names.map((name) => option(name))) : null;

/** Brings what the form offers and shows into line with the settings. */
function fillForm(number, settings, kind, choices) {
  const made = $("plots").children[number].querySelector(".form"), field = (name) => made.querySelector(`[name=${name}]`);
  if (changed(`plot ${number} choices`, choices, settings.keys, settings.group, data.names)) {
    const fill = (name, ...options) => field(name).replaceChildren(...options.filter(Boolean));
    fill("y", optgroup("Metrics", choices.metrics), optgroup("Costs", choices.costs), optgroup("Profiles", choices.profiles));
    fill("x", element("optgroup", {label: "Learning curves over"}, ...AXES.map((name) => option(name, name === "training_flops" ? "training FLOPs" : info(name).title))),
      element("optgroup", {label: "Last values"}, option("", "groups"), ...choices.keys.filter((key) => !choices.numbers.includes(key)).map((key) => option(key))),
      optgroup("Last values against", choices.numbers), element("optgroup", {label: "All at once"}, option("parallel", "parallel coordinates")));
    fill("aggregate", ...Object.entries(AGGREGATES).map(([name, text]) => option(name, text)));
    for (const name of ["log_x", "log_y"]) fill(name, ...Object.entries(LOGS).map(([way, text]) => option(way, text)));
    boxes(made.querySelector(".group div"), choices.keys, settings.group, (group) => change(number, {group, only: []}));
    boxes(made.querySelector(".keys div"), [...choices.keys, ...choices.costs, ...choices.metrics], settings.keys, (keys) => change(number, {keys}));
  }
  for (const name of ["y", "x", "aggregate", "log_x", "log_y", "smooth"]) field(name).value = settings[name];
  const parallel = kind === "parallel", lines = kind === "curves" || kind === "profile";
  for (const name of ["y", "aggregate", "log_y"]) field(name).parentElement.hidden = parallel;
  field("log_x").parentElement.hidden = parallel || kind === "bars";
  made.querySelector(".smooth").hidden = !lines;
  made.querySelector(".group").hidden = parallel;
  made.querySelector(".keys").hidden = !parallel;
}

/** A checkbox for each name; those that are chosen keep their order, a new one comes last. */
function boxes(place, names, chosen, onchange) {
  const focused = place.contains(document.activeElement) && document.activeElement.value;
  const all = [...new Set([...chosen, ...names])];
  place.replaceChildren(...all.map((name) => element("label", {}, element("input", {
    type: "checkbox", value: name, checked: chosen.includes(name),
    onchange: (event) => onchange(event.target.checked ? [...chosen, name] : chosen.filter((other) => other !== name)),
  }), info(name).title)));
  if (focused) place.querySelector(`[value="${CSS.escape(focused)}"]`)?.focus();
}

function drawPlot(number, settings) {
  const figure = $("plots").children[number], box = figure.querySelector(".plot");
  const made = makeFigure(settings);
  state.figures[number] = {...made, settings};
  fillForm(number, settings, made.kind, changedChoices());
  if (changed(`plot ${number} words`, settings.heading, made.caption)) {
    figure.querySelector("h2").textContent = settings.heading;
    figure.querySelector("figcaption").textContent = made.caption;
    box.setAttribute("aria-label", `${settings.heading}. ${made.caption} Arrow keys go from point to point; the numbers are in the table below.`);
  }
  drawLegend(number, made.series, settings, made.kind);
  if (figure.querySelector(".numbers").open) drawNumbers(number);
  state.queue[number] = (state.queue[number] || Promise.resolve()).catch(() => {}).then(() => render(number));
}

/** Draws what a plot shows by now; one at a time, so that an older drawing never ends after a newer one. */
async function render(number) {
  const made = state.figures[number], box = $("plots").children[number]?.querySelector(".plot");
  if (!made || !box) return;
  const spec = {...made.spec, width: "container", height: made.kind === "bars" ? 330 : 300, autosize: {type: "fit-x", contains: "padding"}, config: themed(data.style.config)};
  if (changed(`plot ${number} form`, spec, box.clientWidth)) {
    changed(`plot ${number} numbers`, made.datasets);
    hideTip(number);
    const embedded = await vegaEmbed(box, {...spec, datasets: made.datasets}, {ast: true, renderer: "canvas", actions: false, tooltip: false});
    if (!box.isConnected) { embedded.view.finalize(); return; } // the cards were made anew meanwhile
    if (state.views[number]) state.views[number].finalize();
    state.views[number] = embedded.view;
  } else if (changed(`plot ${number} numbers`, made.datasets) && state.views[number]) {
    for (const [name, rows] of Object.entries(made.datasets)) state.views[number].data(name, rows);
    await state.views[number].runAsync(); // keeps the zoom
  }
}

let offered;
/** What forms offer, worked out again only when the runs have changed. */
function changedChoices() {
  if (!offered || offered.runs !== data.runs) offered = {runs: data.runs, choices: choosable()};
  return offered.choices;
}

const SHAPE_PATHS = {
  circle: "M17 6a4 4 0 1 1-8 0a4 4 0 1 1 8 0z", square: "M9.5 2.5h7v7h-7z", "triangle-up": "M13 1.5l4.5 8h-9z", diamond: "M13 1l4 5l-4 5l-4-5z",
  "triangle-down": "M13 10.5l4.5-8h-9z", cross: "M11.7 2h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",
};

function drawLegend(number, series, settings, kind) {
  if (!changed(`plot ${number} legend`, series, settings.only, kind)) return;
  const place = $("plots").children[number].querySelector(".legend"), {only} = settings;
  const focused = place.contains(document.activeElement) && document.activeElement.dataset.series;
  const alone = series.length < 2 || (kind === "bars" && !settings.x);
  place.hidden = alone;
  place.replaceChildren(...(alone ? [] : series.map((one) => {
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [name, text] of Object.entries({viewBox: "0 0 26 12", width: 26, height: 12, "aria-hidden": "true"})) swatch.setAttribute(name, text);
    const part = (d, attributes) => { const path = document.createElementNS("http://www.w3.org/2000/svg", "path"); for (const [name, text] of Object.entries({d, stroke: one.colour, ...attributes})) path.setAttribute(name, text); swatch.append(path); };
    if (kind === "bars") part("M3 1h20v10h-20z", {fill: one.colour, "fill-opacity": one.opacity});
    else { part("M0 6h26", {"stroke-width": 2, "stroke-dasharray": one.dash.join(" ")}); part(SHAPE_PATHS[one.shape], {fill: one.hollow ? "none" : one.colour}); }
    return element("button", {type: "button", "data-series": one.name, "aria-pressed": String(only.includes(one.name)),
      onclick: () => change(number, {only: only.includes(one.name) ? only.filter((name) => name !== one.name) : [...only, one.name]})}, swatch, one.name);
  })));
  if (focused) place.querySelector(`[data-series="${CSS.escape(focused)}"]`)?.focus();
}

// ---- the nearest point ----

const xText = (settings, x) => typeof x !== "number" ? String(x) : settings.x === "training_flops" ? short(x) : info(settings.x).form ? numberText(info(settings.x).form, x) : general(x);

/** Pixels of a point within the plot's box, or null. */
function placeOf(view, row) {
  const x = view.scale("x"), y = view.scale("y");
  let left = x(row.x) + (x.bandwidth ? x.bandwidth() / 2 : 0);
  try {
    const offset = view.scale("xOffset");
    left = x(row.x) + offset(row.series) + (offset.bandwidth ? offset.bandwidth() / 2 : 0);
  } catch { /* this plot has none */ }
  const [right, down] = view.origin(), top = y(row.y), padding = view.padding(), side = (name) => padding[name] ?? padding ?? 0;
  const inside = left >= -2 && left <= view.width() + 2 && top >= -2 && top <= view.height() + 2;
  return inside ? [left + right + side("left"), top + down + side("top")] : null;
}

function showNearest(number, event) {
  const view = state.views[number], {points, settings} = state.figures[number] || {};
  const canvas = $("plots").children[number].querySelector("canvas");
  if (!view || !canvas || !points) return;
  const ground = canvas.getBoundingClientRect(), x = event.clientX - ground.left, y = event.clientY - ground.top;
  let best = null, least = NEAR ** 2;
  for (const row of points) {
    if (settings.only.length && row.series && !settings.only.includes(row.series)) continue;
    const place = placeOf(view, row);
    if (!place) continue;
    const distance = (place[0] - x) ** 2 + (place[1] - y) ** 2;
    if (distance < least) { least = distance; best = {row, place}; }
  }
  if (best) showTip(number, best.row, best.place); else hideTip(number);
}

function tipLines(row, {settings, kind, titles}) {
  if (kind === "parallel") return [row.run, row.text];
  const y = kind === "profile" ? general(row.y, 4) : valueText(settings.y, row.y), lines = [];
  if (row.run !== undefined) lines.push(row.run, row.series);
  else if (row.n === 1) lines.push(row.runs[0], row.series);
  else if (row.n === 0) lines.push(row.series, "reference");
  else lines.push(row.series, `${{median: "median", best: "best"}[settings.aggregate] || "mean"} of ${row.n} runs: ${row.runs.join(", ")}`);
  if (kind !== "bars" || settings.x) lines.push(`${titles.x}: ${xText(settings, row.x)}`);
  lines.push(`${titles.y}: ${y}`);
  if (row.n > 1) lines.push(`${valueText(settings.y, row.low)} to ${valueText(settings.y, row.high)}`);
  return lines.filter((line, i) => i === 0 || line !== lines[0]);
}

function showTip(number, row, [left, top]) {
  const figure = $("plots").children[number], tip = figure.querySelector(".tip"), ring = figure.querySelector(".ring"), frame = figure.querySelector(".frame");
  const canvas = figure.querySelector("canvas").getBoundingClientRect(), ground = frame.getBoundingClientRect();
  left += canvas.left - ground.left;
  top += canvas.top - ground.top;
  const [first, ...rest] = tipLines(row, state.figures[number]);
  tip.replaceChildren(element("b", {}, first), ...rest.map((line) => element("div", {}, line)));
  tip.hidden = ring.hidden = false;
  ring.style.left = `${left}px`;
  ring.style.top = `${top}px`;
  tip.style.left = `${Math.max(0, Math.min(left + 14, ground.width - tip.offsetWidth))}px`;
  tip.style.top = `${top - tip.offsetHeight - 12 > 0 ? top - tip.offsetHeight - 12 : top + 14}px`;
}

function hideTip(number) {
  const figure = $("plots").children[number];
  if (figure) figure.querySelector(".tip").hidden = figure.querySelector(".ring").hidden = true;
}

/** Left and right go from point to point, up and down to the next run or group. */
function stepThrough(number, event) {
  const figure = state.figures[number], view = state.views[number];
  if (event.key === "Escape") { hideTip(number); return; }
  if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key) || !view || !figure.points.length) return;
  event.preventDefault();
  const {points} = figure, whose = (row) => row.run ?? row.series, last = points.length - 1;
  let at = figure.at ?? (event.key === "ArrowLeft" ? 1 : -1);
  if (event.key === "Home") at = 0;
  else if (event.key === "End") at = last;
  else if (event.key === "ArrowLeft") at -= 1;
  else if (event.key === "ArrowRight") at += 1;
  else {
    const way = event.key === "ArrowDown" ? 1 : -1, from = whose(points[Math.max(0, at)]);
    do at += way; while (at > 0 && at < last && whose(points[at]) === from);
  }
  figure.at = Math.max(0, Math.min(last, at));
  const place = placeOf(view, points[figure.at]);
  if (place) showTip(number, points[figure.at], place);
}

// ---- the numbers behind a plot ----

function drawNumbers(number) {
  const figure = $("plots").children[number], details = figure.querySelector(".numbers"), {rows, kind, settings, titles} = state.figures[number];
  if (!details.open || !changed(`plot ${number} table`, rows, kind, titles)) return;
  const table = details.querySelector("table"), single = kind === "parallel" || (rows.length > 0 && rows[0].run !== undefined);
  const heads = kind === "parallel" ? ["run", "value"] : single ? ["run", "group", titles.x || "group", titles.y] : ["group", ...(kind === "bars" && !settings.x ? [] : [titles.x]), titles.y, "low", "high", "runs"];
  const text = (y) => y === undefined ? "" : kind === "profile" ? general(y, 4) : valueText(settings.y, y);
  const cells = (row) => kind === "parallel" ? [row.run, row.text] : single ? [row.run, row.series, xText(settings, row.x), text(row.y)]
    : [row.series, ...(kind === "bars" && !settings.x ? [] : [xText(settings, row.x)]), text(row.y), text(row.low), text(row.high), row.n ? String(row.n) : "reference"];
  table.caption.textContent = rows.length > MAX_ROWS ? `The first ${MAX_ROWS} of ${plural(rows.length, "row")}` : plural(rows.length, "row");
  table.tHead.replaceChildren(element("tr", {}, ...heads.map((head) => element("th", {scope: "col"}, head))));
  table.tBodies[0].replaceChildren(...rows.slice(0, MAX_ROWS).map((row) => element("tr", {}, ...cells(row).map((cell, i) => i ? element("td", {}, cell) : element("th", {scope: "row"}, ...breakable(cell))))));
}

// ---- copies ----

/** Lines of at most so many characters. */
function wrapped(text, length) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1) && lines.at(-1).length + word.length >= length) lines.push("");
    lines.push(`${lines.pop()} ${word}`.trim());
  }
  return lines;
}

/** The figure on white with its legend and caption, as a blob that `way` copies or saves. */
async function copyFigure(number, type, way) {
  const place = element("div", {style: "position: absolute; left: -9999px; top: 0"});
  document.body.append(place);
  state.paper = true;
  const settings = {...state.figures[number].settings, legend: true, still: true};
  const made = makeFigure(settings);
  state.paper = false;
  try {
    const title = {text: wrapped(`${made.caption} ${data.footnote || ""}`.trim(), 110)};
    const spec = {...made.spec, datasets: made.datasets, title, width: 440, height: 280, config: data.style.config};
    const {view} = await vegaEmbed(place, spec, {ast: true, renderer: "svg", actions: false, tooltip: false});
    const blob = type === "svg" ? new Blob([await view.toSVG()], {type: "image/svg+xml"})
      : await view.toCanvas(3).then((canvas) => new Promise((done) => canvas.toBlob(done, "image/png")));
    await way(blob, `${settings.heading.toLowerCase().replace(/[^\w]+/g, "-")}.${type}`);
    view.finalize();
  } finally {
    place.remove();
  }
}

dark.addEventListener("change", () => draw());
let resizing;
window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawPlots, 200); });
$("add-plot").addEventListener("click", addPlot);
$("reset-plots").addEventListener("click", () => { state.plots = null; draw(); $("add-plot").focus(); });

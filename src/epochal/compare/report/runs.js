// The table of runs: sections, sort, filter, ticks. It is one stop of the tab key; arrows go from cell to cell.

function drawStatuses() {
  if (!changed("statuses", data.statuses, state.status)) return;
  const choices = Object.entries(data.statuses);
  $("statuses").replaceChildren(...(choices.length < 2 ? [] : choices.map(([status, count]) => element("button", {
    type: "button", id: `status-${status}`, "aria-pressed": String(state.status === status),
    onclick: () => { state.status = state.status === status ? null : status; draw(); $(`status-${status}`).focus(); },
  }, `${count} ${status}`))));
}

const columns = () => ["name", "status", ...data.columns];
const headOf = (key) => key === "name" ? "run" : key === "status" ? "status" : info(key).title;
/** How the table is sorted: as chosen, or as the data come, the best first. */
const sorting = () => state.sort || data.sort;

function sortValue(run, key) {
  const found = key === "name" || key === "status" ? run[key] : value(run, key);
  return found === undefined ? null : typeof found === "number" ? found : valueText(key, found) || null;
}

/** The sections with the runs that are shown, in the order chosen. */
function sections() {
  const shown = new Map(filtered().map((run) => [run.name, run])), {key, descending} = sorting(), way = descending ? -1 : 1;
  return data.sections.map(({title, runs}) => {
    const found = runs.filter((name) => shown.has(name)).map((name) => shown.get(name));
    if (state.sort) found.sort((one, other) => {
      const a = sortValue(one, key), b = sortValue(other, key);
      if (a === null || b === null) return (a === null) - (b === null);
      if (typeof a === "number" && typeof b === "number") return way * (a - b);
      return way * String(a).localeCompare(String(b), "en", {numeric: true});
    });
    return {title, runs: found};
  }).filter(({runs}) => runs.length);
}

function drawRuns() {
  const table = $("runs"), numbers = data.columns.map((name) => isNumeric(name)), {key, descending} = sorting();
  if (changed("columns", data.columns, data.names, numbers, key, descending)) {
    const sorted = (name) => name !== key ? null : descending ? "descending" : "ascending";
    const button = (name) => element("button", {type: "button", tabindex: -1, "data-sort": name, title: name, onclick: () => sortBy(name)}, headOf(name));
    const focused = table.tHead.contains(document.activeElement) && document.activeElement.dataset.sort;
    table.tHead.replaceChildren(element("tr", {}, element("th", {scope: "col", class: "tick", tabindex: -1}, "pick"),
      ...columns().map((name, i) => element("th", {scope: "col", class: i > 1 && numbers[i - 2] ? "number" : i === 0 ? "name" : null, "aria-sort": sorted(name)}, button(name)))));
    if (focused) table.tHead.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
  }
  const shown = sections(), known = new Set(data.runs.map((run) => run.name));
  for (const name of [...state.rows.keys()]) if (!known.has(name)) { state.rows.delete(name); delete state.drawn[`run ${name}`]; }
  for (const name of [...state.ticked]) if (!known.has(name)) state.ticked.delete(name);
  for (const {runs} of shown) for (const run of runs) fillRow(run, numbers);
  const alone = data.sections.length < 2;
  const order = shown.map(({title, runs}) => [alone ? "" : title, runs.map((run) => run.name)]);
  if (changed("rows", order)) {
    const focused = table.contains(document.activeElement) ? document.activeElement : null;
    for (const body of [...table.tBodies]) body.remove();
    table.append(...shown.map(({title, runs}) => element("tbody", {}, alone ? null : element("tr", {class: "section"},
      element("th", {scope: "rowgroup", colspan: columns().length + 1}, element("span", {}, `${title}: ${plural(runs.length, "run")}`))),
      ...runs.map((run) => state.rows.get(run.name)))));
    if (focused && table.contains(focused)) focused.focus({preventScroll: true});
  }
  const count = shown.reduce((sum, {runs}) => sum + runs.length, 0);
  table.caption.textContent = count === data.runs.length ? plural(count, "run") : `${count} of ${plural(data.runs.length, "run")}`;
  const shows = state.ticked.size ? `Plots show the ${plural(state.ticked.size, "run")} picked.` : state.filter || state.status ? "Plots show the runs found." : "";
  $("shows").textContent = shows;
  $("clear").hidden = !state.ticked.size;
  placeTabStop();
}

/** Creates or updates the row of a run. */
function fillRow(run, numbers) {
  const ticked = state.ticked.has(run.name);
  if (!changed(`run ${run.name}`, run.status, run.progress, run.values, run.config, ticked, data.columns, numbers)) return;
  let row = state.rows.get(run.name);
  if (!row) {
    const box = element("input", {type: "checkbox", tabindex: -1, "aria-label": `pick ${run.name}`, onchange: (event) => tick(run.name, event.target.checked)});
    state.rows.set(run.name, row = element("tr", {"data-run": run.name}, element("td", {class: "tick"}, box)));
  }
  const at = [...row.cells].indexOf(document.activeElement);
  row.className = ticked ? "ticked" : "";
  row.querySelector("input").checked = ticked;
  while (row.cells.length > 1) row.lastChild.remove();
  const status = element("td", {tabindex: -1}, badge(run.status));
  if (run.status !== "finished" && run.status !== "failed") status.append(element("progress", {value: run.progress, max: 1, "aria-label": "progress"}));
  row.append(element("th", {scope: "row", class: "name", tabindex: -1, title: run.name}, ...breakable(run.name)), status,
    ...data.columns.map((name, i) => element("td", {tabindex: -1, class: numbers[i] ? "number" : null}, valueText(name, value(run, name)))));
  if (at >= 0) row.cells[at]?.focus({preventScroll: true});
}

/** The first click puts the best first, or the first in the alphabet; another turns the order. */
function sortBy(key) {
  const {key: now, descending} = sorting();
  state.sort = {key, descending: state.sort && now === key ? !descending : largerIsBetter(key)};
  draw();
}

function tick(name, on) {
  if (on) state.ticked.add(name); else state.ticked.delete(name);
  draw();
}

// ---- the keyboard ----

const rowsOf = (table) => [...table.rows].filter((row) => !row.classList.contains("section"));
const target = (cell) => cell.querySelector("button, input") || cell;

/** Of all cells, one can be reached by the tab key: the last one that was used. */
function placeTabStop() {
  const table = $("runs"), rows = rowsOf(table);
  const row = rows.find((one) => (one.dataset.run ?? null) === state.cell.row) || rows[0];
  const stop = target(row.cells[Math.min(state.cell.column, row.cells.length - 1)]);
  for (const old of table.querySelectorAll("[tabindex='0']")) if (old !== stop) old.tabIndex = -1;
  stop.tabIndex = 0;
}

$("runs").addEventListener("focusin", (event) => {
  const cell = event.target.closest("th, td"), row = cell && cell.closest("tr");
  if (!row || row.classList.contains("section")) return;
  state.cell = {row: row.dataset.run ?? null, column: cell.cellIndex};
  placeTabStop();
});

$("runs").addEventListener("keydown", (event) => {
  const cell = event.target.closest("th, td"), row = cell && cell.closest("tr");
  if (!row || event.altKey || event.metaKey) return;
  const rows = rowsOf($("runs")), at = rows.indexOf(row), last = rows.length - 1;
  const moves = {
    ArrowUp: [at - 1, cell.cellIndex], ArrowDown: [at + 1, cell.cellIndex], ArrowLeft: [at, cell.cellIndex - 1], ArrowRight: [at, cell.cellIndex + 1],
    PageUp: [Math.max(at - 10, 0), cell.cellIndex], PageDown: [Math.min(at + 10, last), cell.cellIndex],
    Home: [event.ctrlKey ? 0 : at, 0], End: [event.ctrlKey ? last : at, row.cells.length - 1],
  };
  if (event.key === " " && row.dataset.run !== undefined && event.target.tagName !== "INPUT") {
    event.preventDefault();
    tick(row.dataset.run, !state.ticked.has(row.dataset.run));
  } else if (moves[event.key]) {
    event.preventDefault();
    const [y, x] = moves[event.key], next = rows[y]?.cells[x];
    if (next) { target(next).focus({preventScroll: true}); next.scrollIntoView({block: "nearest", inline: "nearest"}); }
  }
});

// ---- filter, picks, copies ----

$("filter").addEventListener("input", (event) => { state.filter = event.target.value.trim(); draw(); });
$("clear").addEventListener("click", () => { state.ticked.clear(); draw(); $("filter").focus(); });
$("pick-all").addEventListener("click", () => { for (const run of filtered()) state.ticked.add(run.name); draw(); });

/** The table as it is shown: heads, and the texts of each run. */
function shownTable() {
  const exact = (run, name) => { const found = value(run, name); return found === undefined ? "" : String(found); };
  const runs = sections().flatMap(({runs}) => runs);
  return {runs, exact, text: (run, name) => name === "name" || name === "status" ? run[name] : valueText(name, value(run, name))};
}

function tableCsv() {
  const {runs, exact} = shownTable(), quoted = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const lines = [columns(), ...runs.map((run) => columns().map((name) => name === "name" || name === "status" ? run[name] : exact(run, name)))];
  return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function tableMarkdown() {
  const {runs, text} = shownTable(), line = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = columns().map((name) => name !== "name" && name !== "status" && isNumeric(name) ? "---:" : "---");
  return [line(columns().map(headOf)), `| ${rule.join(" | ")} |`, ...runs.map((run) => line(columns().map((name) => text(run, name))))].join("\n") + "\n";
}

$("copy-csv").addEventListener("click", () => copy(new Blob([tableCsv()], {type: "text/csv"}), "runs.csv"));
$("copy-markdown").addEventListener("click", () => copy(new Blob([tableMarkdown()], {type: "text/markdown"}), "runs.md"));

// What the reader has chosen, in the address: it survives a reload, and a link to the page shows the same.

function address() {
  const found = new URLSearchParams();
  if (state.filter) found.set("filter", state.filter);
  if (state.status) found.set("status", state.status);
  if (state.sort) found.set("sort", (state.sort.descending ? "-" : "") + state.sort.key);
  for (const name of state.ticked) found.append("pick", name);
  if (state.allKeys) found.set("keys", "all");
  if (state.name) found.set("show", state.name);
  if (state.step !== null) found.set("step", state.step);
  if (state.plots) found.set("plots", JSON.stringify(state.plots));
  return found.toString();
}

function writeAddress() {
  const found = address();
  if (found === location.hash.slice(1)) return;
  try {
    history.replaceState(null, "", found ? `#${found}` : location.pathname + location.search);
  } catch { /* a browser that allows it too seldom, or not for files: the choice is not kept */ }
}

/** Takes over what the address says; what cannot be read is left out. */
function readAddress() {
  const found = new URLSearchParams(location.hash.slice(1));
  state.filter = found.get("filter") || "";
  state.status = found.get("status");
  const sort = found.get("sort");
  state.sort = sort ? {key: sort.replace(/^-/, ""), descending: sort.startsWith("-")} : null;
  state.ticked = new Set(found.getAll("pick"));
  state.allKeys = found.get("keys") === "all";
  state.name = found.get("show");
  state.step = found.has("step") && Number.isFinite(Number(found.get("step"))) ? Number(found.get("step")) : null;
  state.plots = null;
  try {
    const plots = JSON.parse(found.get("plots"));
    if (Array.isArray(plots)) state.plots = plots.filter((plot) => plot && typeof plot === "object").map(checkedPlot);
  } catch { /* not ours */ }
  $("filter").value = state.filter;
  $("all-keys").checked = state.allKeys;
}

const FIELDS = {x: "string", y: "string", log_x: "string", log_y: "string", smooth: "number", aggregate: "string"};

/** A plot of the address, without what is of another type. */
function checkedPlot(plot) {
  const texts = (list) => Array.isArray(list) && list.every((text) => typeof text === "string");
  const checked = {from: Number.isInteger(plot.from) && plot.from < data.plots.length ? plot.from : null};
  for (const [field, type] of Object.entries(FIELDS)) if (typeof plot[field] === type) checked[field] = plot[field];
  for (const field of ["group", "keys", "only"]) if (texts(plot[field])) checked[field] = plot[field];
  return checked;
}

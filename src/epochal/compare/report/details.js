// The verdict, the lists of runs that go on or failed, configs side by side, pictures and samples.

function drawVerdict() {
  if (!changed("verdict", data.verdict)) return;
  const box = $("verdict"), verdict = data.verdict;
  box.hidden = !verdict;
  if (!verdict) return;
  box.className = `card ${CLASSES[verdict.verdict]}`;
  const words = verdict.verdict[0].toUpperCase() + verdict.verdict.slice(1);
  box.replaceChildren(
    element("p", {class: "answer"}, `${SIGNS[verdict.verdict]} ${words}`),
    element("p", {}, verdict.sentence),
    element("ul", {}, ...verdict.tests.map((test) => element("li", {},
      element("p", {}, badge(test.verdict), test.says), element("p", {class: "soft"}, test.sentence)))),
  );
}

function drawLists() {
  const going = data.runs.filter((run) => run.status === "running");
  if (changed("going", going.map((run) => [run.label, run.progress]))) {
    $("going").hidden = !going.length;
    $("going").querySelector("ul").replaceChildren(...going.map((run) => element("li", {},
      element("progress", {value: run.progress, max: 1, "aria-label": `progress of ${run.label}`}),
      ` ${Math.floor(100 * run.progress)} % ${run.label}`)));
  }
  const failed = data.runs.filter((run) => run.status === "failed");
  if (changed("failed", failed.map((run) => [run.name, run.error]))) {
    const said = new Map();
    for (const run of failed) said.set(run.error, [...(said.get(run.error) || []), run]);
    $("failed").hidden = !failed.length;
    $("failed").open = said.size <= 3;
    $("failed").querySelector("summary").textContent = `${plural(failed.length, "run")} failed`;
    $("failed").querySelector("ul").replaceChildren(...[...said].map(([error, runs]) => element("li", {},
      ...breakable(names(runs).join(", ")), element("div", {class: "soft"}, error || "no reason given"))));
  }
  if (changed("skipped", data.skipped)) {
    $("skipped").hidden = !data.skipped.length;
    $("skipped").querySelector("summary").textContent = `${plural(data.skipped.length, "folder")} skipped`;
    $("skipped").querySelector("ul").replaceChildren(...data.skipped.map(([path, reason]) => element("li", {}, `${path}: ${reason}`)));
  }
}

// ---- configs side by side ----

/** A config value as YAML has it, in quotes where it would be invisible otherwise. */
const configText = (found) => typeof found === "string" && found.trim() && !/[\p{C}]/u.test(found) ? found : found === undefined ? "—" : JSON.stringify(found);

function drawDiff() {
  const runs = tickedRuns();
  if (!changed("diff", runs.map((run) => [run.name, run.config, run.versions]), data.common, state.allKeys)) return;
  $("compare-hint").hidden = runs.length > 1;
  $("compare-body").hidden = runs.length < 2;
  if (runs.length < 2) return;
  const configs = [...new Set([...runs.flatMap((run) => Object.keys(run.config)), ...Object.keys(data.common)])].sort();
  const rows = [
    ...configs.map((key) => ({key, texts: runs.map((run) => configText(key in run.config ? run.config[key] : data.common[key]))})),
    ...[...new Set(runs.flatMap((run) => Object.keys(run.versions)))].map((key) => ({key: key === "commit" ? "code: commit" : `version: ${key}`, texts: runs.map((run) => run.versions[key] ?? "—")})),
  ].map((row) => ({...row, differs: row.texts.some((text) => text !== row.texts[0])}));
  const shown = rows.filter((row) => state.allKeys || row.differs), table = $("diff");
  table.caption.textContent = state.allKeys ? plural(shown.length, "key") : `${plural(shown.length, "key")} in which they differ`;
  table.tHead.replaceChildren(element("tr", {}, element("th", {scope: "col"}, "key"),
    ...runs.map((run) => element("th", {scope: "col"}, ...breakable(run.name)))));
  table.tBodies[0].replaceChildren(...shown.map(({key, texts, differs}) => element("tr", {class: state.allKeys && differs ? "differs" : null},
    element("th", {scope: "row"}, ...breakable(key)), ...texts.map((text) => element("td", {}, ...breakable(text))))));
}

$("all-keys").addEventListener("change", (event) => { state.allKeys = event.target.checked; draw(); });

// ---- pictures and samples ----

const FEW = 3; // runs shown if none is ticked
const TEST = "test"; // the last position of the slider

function drawShown() {
  const count = new Map();
  for (const entry of data.shown) count.set(entry.name, (count.get(entry.name) || 0) + 1);
  const names = [...count.keys()].sort((a, b) => count.get(b) - count.get(a));
  $("shown").hidden = !names.length;
  if (!names.length) return;
  const name = names.includes(state.name) ? state.name : names[0];
  if (changed("shown names", names)) $("shown-name").replaceChildren(...names.map((name) => element("option", {}, name)));
  $("shown-name").value = name;

  const entries = data.shown.filter((entry) => entry.name === name), having = new Set(entries.map((entry) => entry.run));
  const picked = tickedRuns().filter((run) => having.has(run.name));
  const runs = picked.length ? picked : data.runs.filter((run) => having.has(run.name)).slice(0, FEW);
  const mine = runs.map((run) => entries.filter((entry) => entry.run === run.name));
  const numbers = mine.flat().map((entry) => entry.step).filter((step) => step !== null);
  const steps = [...new Set(numbers)].sort((a, b) => a - b);
  if (mine.flat().some((entry) => entry.step === null)) steps.push(TEST);
  const at = state.step === null ? steps.length - 1 : Math.max(0, state.step === TEST ? steps.length - 1 : steps.findLastIndex((step) => step !== TEST && step <= state.step));
  const label = (step) => step === TEST ? "test" : step.toLocaleString("en");
  const slider = $("step");
  slider.max = steps.length - 1;
  slider.value = at;
  slider.disabled = steps.length < 2;
  slider.setAttribute("aria-valuetext", label(steps[at]));
  slider.onkeydown = null;
  slider.oninput = () => { const step = steps[Number(slider.value)]; state.step = Number(slider.value) === steps.length - 1 ? null : step; drawShown(); };
  $("step-text").textContent = label(steps[at]);
  const chosen = mine.map((list) => steps[at] === TEST
    ? list.find((entry) => entry.step === null) || list.at(-1)
    : list.filter((entry) => entry.step !== null && entry.step <= steps[at]).at(-1));
  const hints = [picked.length ? "Of the runs picked." : runs.length < data.runs.length ? `Of the best ${plural(runs.length, "run")}; pick others in the table.` : ""];
  if (data.left_out) hints.push(`${plural(data.left_out, "picture or text").replace("texts", "texts")} left out to keep this file small; they are in the run folders.`);
  $("shown-hint").textContent = hints.join(" ");
  $("shown-runs").classList.toggle("wide", name.startsWith("explain ")); // sheets of many small pictures
  if (!changed("shown", runs.map((run) => run.name), chosen)) return;
  $("shown-runs").replaceChildren(...runs.map((run, i) => element("article", {},
    element("h3", {}, ...breakable(run.name)), chosen[i] ? exhibit(run, chosen[i]) : element("p", {class: "soft"}, "Nothing yet at this step."))));
}

function exhibit(run, entry) {
  const step = entry.step === null ? "test" : `step ${entry.step.toLocaleString("en")}`;
  const figure = element("figure", {style: "margin: 0"});
  if (entry.kind === "text") {
    const text = element("pre", {tabindex: 0}, entry.text ?? "…");
    if (entry.text === undefined) fetch(entry.src).then((answer) => answer.ok ? answer.text() : "gone").then((found) => { text.textContent = found; }, () => {});
    figure.append(text);
  } else {
    figure.append(element("img", {src: entry.src, alt: `${entry.name} of ${run.name}, ${step}`}));
  }
  figure.append(element("figcaption", {class: "soft"}, step));
  return figure;
}

$("shown-name").addEventListener("change", (event) => { state.name = event.target.value; draw(); });

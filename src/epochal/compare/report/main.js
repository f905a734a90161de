// Draws the page, and on a live page asks for what has changed. What is drawn again is only what differs from before.

function draw() {
  if (changed("head", data.title, data.source, data.statuses, data.footnote)) {
    document.title = $("title").textContent = data.title;
    $("source").textContent = data.source || "";
    $("footnote").textContent = data.footnote || "";
    const counts = Object.entries(data.statuses).map(([status, count]) => `${count} ${status}`);
    $("counts").textContent = `${plural(data.runs.length, "run")}: ${counts.join(", ")}`;
  }
  $("written").textContent = `as of ${data.written}`;
  drawVerdict();
  drawLists();
  drawPlots();
  drawStatuses();
  drawRuns();
  drawDiff();
  drawShown();
  writeAddress();
}

/** Takes over an update: whole, or with only what has changed since the version that was known. */
function update(news) {
  const {runs, shown, order, since, ...rest} = news;
  if (since === undefined) { data = news; return; }
  const known = new Map([...data.runs, ...(runs || [])].map((run) => [run.name, run]));
  const names = order || data.runs.map((run) => run.name);
  const fresh = new Set(Object.keys(shown || {})), there = new Set(names);
  data = {...data, ...rest, runs: names.map((name) => known.get(name)),
    shown: [...data.shown.filter((entry) => !fresh.has(entry.run) && there.has(entry.run)), ...Object.values(shown || {}).flat()]};
}

// ---- updates ----

async function ask() {
  try {
    if (!document.hidden) {
      const answer = await fetch(`data.json?known=${encodeURIComponent(data.version)}`);
      if (!answer.ok) throw new Error(await answer.text());
      if (answer.status === 200) {
        update(await answer.json());
        draw();
      }
      $("state").textContent = "live";
      $("state").className = "good";
    }
  } catch (problem) {
    $("state").textContent = `no news: ${problem instanceof TypeError ? "the server has ended" : problem.message}`;
    $("state").className = "bad";
  }
  setTimeout(ask, EVERY);
}

window.addEventListener("hashchange", () => { if (location.hash.slice(1) !== address()) { readAddress(); draw(); } });
readAddress();
draw();
if (data.live) ask();

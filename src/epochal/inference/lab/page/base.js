// What all rooms use: two languages, elements, requests with the token, and the address that holds what was chosen.

export const korean = (new URLSearchParams(location.search).get("lang") || navigator.language || "en").startsWith("ko");

/** The text in the page's language. */
export const t = (en, ko) => (korean ? ko : en);

const token = new URLSearchParams(location.search).get("token") || "";
export const mayAct = token !== "";

/** An element. Attributes: `text`, `class`, `data`, listeners (`onclick`), properties of inputs, and all others as they are. */
export function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "rect", "g", "text", "polyline", "title"].includes(tag) && attributes.svg !== false;
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "svg") continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (["value", "checked", "selected", "disabled", "hidden"].includes(name)) made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

async function answered(response) {
  if (response.status === 204) return null;
  let data;
  try {
    data = await response.json();
  } catch {
    throw new Error(t("The lab's answer cannot be read.", "연구실의 답을 읽을 수 없습니다."));
  }
  if (!response.ok) throw new Error(data.error || response.statusText);
  return data;
}

async function asked(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(t("The lab does not answer: was it ended in the terminal?", "연구실이 응답하지 않습니다. 터미널에서 종료되었나요?"));
  }
}

/** JSON from the lab; throws an Error with the server's sentence. */
export const get = async (path, signal) => answered(await asked(path, { signal }));

/** Sends JSON, or bytes as they are, and returns the answer; throws an Error with the server's sentence. */
export async function post(path, data = {}, signal = undefined) {
  const raw = data instanceof Blob || data instanceof ArrayBuffer;
  const headers = { "X-Lab-Token": token, "Content-Type": raw ? "application/octet-stream" : "application/json" };
  return answered(await asked(path, { method: "POST", headers, body: raw ? data : JSON.stringify(data), signal }));
}

/** A WebSocket of the lab. */
export function socket(path) {
  const address = new URL(path, location.href);
  address.protocol = "ws:";
  address.searchParams.set("token", token);
  return new WebSocket(address);
}

/** The lines of JSON that an answer to a POST consists of, each as soon as it comes. */
export async function* lines(path, data, signal) {
  const headers = { "X-Lab-Token": token, "Content-Type": "application/json" };
  const response = await asked(path, { method: "POST", headers, body: JSON.stringify(data), signal });
  if (!response.ok) await answered(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      const found = JSON.parse(part);
      if (found.error) throw new Error(found.error);
      yield found;
    }
  }
}

/** Replaces an element's content; what is null is left out. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** Shows what went wrong in an element, or nothing. */
export function problem(element, error) {
  if (error && error.name === "AbortError") return;
  element.textContent = error ? error.message : "";
  element.hidden = !error;
}

/** The room and choices of the address: #see?run=... */
export function place() {
  const [room, query = ""] = location.hash.slice(1).split("?");
  return { room: room || "runs", query: new URLSearchParams(query) };
}

const left = new Map(); // by room the choices that it was left with

/** The address of a room, with the choices that it was left with. */
export const roomAddress = (room) => `#${room}${left.get(room) ? `?${left.get(room)}` : ""}`;

/** Keeps the choices of the address, so that a room is found again as it was left. */
export function keepPlace() {
  const { room, query } = place();
  left.set(room, query.toString());
}

/** Puts choices into the address, without a new entry in the history; null takes one out. */
export function choose(changes) {
  const { room, query } = place();
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(key);
    else query.set(key, value);
  }
  const text = query.toString();
  history.replaceState(null, "", `#${room}${text ? `?${text}` : ""}`);
  keepPlace();
}

let listed = { version: "", runs: [] };

/** All runs, the newest first. */
export async function allRuns() {
  listed = (await get(`api/runs?known=${listed.version}`)) || listed;
  return listed.runs;
}

export const runTitle = (run) => `${run.model} · ${run.dataset}${run.result ? ` · ${run.result}` : ""}`;

/** A labelled choice of the runs that a room can show. Calls `changed(run)`, also for the first one; null if there is none. */
export async function runPicker(room, chosen, changed) {
  const runs = (await allRuns()).filter((run) => run.rooms.includes(room));
  const select = el("select", { "aria-label": t("Run", "실행") });
  for (const run of runs) {
    const when = new Date(run.touched * 1000).toLocaleString(korean ? "ko" : "en", { dateStyle: "medium", timeStyle: "short" });
    select.append(el("option", { value: run.id, text: `${runTitle(run)} · ${when}` }));
  }
  const about = el("p", { class: "soft" });
  const show = () => {
    const run = runs.find((one) => one.id === select.value);
    choose({ run: run.id });
    about.replaceChildren(el("span", { text: `${run.folder} · ` }), el("code", { text: `epochal train ${run.typed}` }));
    if (run.experiment) about.append(el("span", { text: ` · ${t("of the claim", "주장")} ${run.experiment}` }));
    changed(run);
  };
  select.addEventListener("change", show);
  const picker = el("div", {}, el("label", { class: "field" }, t("Network of the run", "실행의 신경망"), select), about);
  if (!runs.length) {
    picker.hidden = true;
    changed(null);
  } else {
    if (runs.some((run) => run.id === chosen)) select.value = chosen;
    show();
  }
  return picker;
}

/** What a room without runs shows: the line that trains one, and a button that does. */
export function offer(line, what) {
  const note = el("p", { class: "problem", hidden: true, role: "status" });
  const start = async () => {
    try {
      const { number } = await post("api/start", { line });
      location.hash = `#runs?started=${number}`;
    } catch (error) {
      problem(note, error);
    }
  };
  return el("div", { class: "card" },
    el("p", { text: what }),
    el("p", {}, el("code", { text: `epochal train ${line}` })),
    el("button", { type: "button", class: "main", onclick: start, disabled: !mayAct, text: t("Train it now", "지금 학습하기") }),
    note);
}

const colours = () => getComputedStyle(document.documentElement);
/** The value of a CSS variable such as --ink, for canvases. */
export const colour = (name) => colours().getPropertyValue(name).trim();

/** A number in three significant digits. */
export const short = (value) => (value === null || value === undefined ? "" : String(Number(Number(value).toPrecision(3))));

// The playground: points in the plane, a small network that learns them, and what it makes of the plane meanwhile.

import { choose, colour, el, fill, mayAct, post, problem, short, socket, t } from "./base.js";

const SPAN = 6; // the plane goes from -SPAN to SPAN
const SIDE = 480; // pixels of the canvas
// Of the classes, the same as in tasks/visuals/boundary.py
const COLOURS = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [190, 178, 30], [120, 120, 120]];
const NEGATIVE = COLOURS[1], POSITIVE = COLOURS[0]; // of a unit's output
const KINDS = {
  spiral: () => t("spirals", "나선"), circles: () => t("circles", "원"), xor: () => t("exclusive or", "배타적 논리합"),
  blobs: () => t("blobs", "덩어리"), own: () => t("your own", "직접 찍기"),
};
const START = { kind: "spiral", classes: 2, noise: 0.1, hidden: "8,8", activation: "tanh", steps: 10000 };
const CHOICES = { classes: [2, 3, 4, 5, 6, 7, 8], activation: ["tanh", "relu", "sigmoid"], steps: [2000, 10000, 50000] };

let shown = 0; // counts the visits of the room, so that what belongs to an older one ends
let watching = null; // the open WebSocket

export const room = {
  name: "playground",
  title: t("Playground", "놀이터"),
  async show(main, query) {
    const state = { ...START, points: { train: [], val: [] }, own: [], brush: 0, frame: null, number: null, mine: ++shown };
    for (const key of Object.keys(START)) if (query.has(key)) state[key] = typeof START[key] === "number" ? Number(query.get(key)) : query.get(key);
    if (!(state.kind in KINDS)) state.kind = START.kind;
    const view = parts(state);
    main.append(el("p", { class: "soft", text: t(
      "A real run of the framework on the data set “points”: it is listed among the runs like any other.",
      "데이터 집합 “points”에 대한 프레임워크의 실제 실행이며, 다른 실행처럼 목록에 나타납니다.") }),
      el("div", { class: "play" }, view.settings, view.middle, view.side), view.unitsCard);
    await refreshPoints(state, view);
    draw(state, view);
    if (query.has("started")) watch(state, view, Number(query.get("started")));
  },
  hide() {
    shown += 1;
    if (watching) watching.close();
    watching = null;
  },
};

/** All elements of the room, by what they are for. */
function parts(state) {
  const view = { note: el("p", { class: "problem", role: "alert", hidden: true }) };
  view.canvas = el("canvas", { class: "plane", width: SIDE, height: SIDE, tabindex: 0, role: "img" });
  view.legend = el("p", { class: "soft" });
  view.status = el("p", { class: "soft", role: "status" });
  view.numbers = el("p", { class: "numbers", "aria-live": "off" });
  view.curve = el("div");
  view.line = el("p", { class: "soft" });
  view.units = el("div", { class: "units" });
  view.unitsCard = el("section", { class: "card", hidden: true, "aria-label": t("Units", "유닛") }, el("h2", { text: t("What each unit has learned", "각 유닛이 배운 것") }),
    el("p", { class: "soft", text: t("Its output over the plane: blue above zero, orange below. At most 16 of a layer.", "평면에서의 출력: 파랑은 양수, 주황은 음수입니다. 층마다 최대 16개.") }), view.units);
  view.settings = settings(state, view);
  view.middle = el("section", { class: "card", "aria-label": t("Plane", "평면") }, view.canvas, view.legend, view.numbers, view.status, view.note);
  view.side = el("section", { class: "card", "aria-label": t("Training", "학습") }, sliders(state, view), view.curve, view.line);
  ownPoints(state, view);
  return view;
}

function chooser(label, values, value, changed, name = String) {
  const select = el("select", { "aria-label": label }, values.map((one) => el("option", { value: one, text: name(one), selected: String(one) === String(value) })));
  select.addEventListener("change", () => changed(select.value));
  return el("label", { class: "field" }, label, select);
}

/** Data, network and buttons. */
function settings(state, view) {
  const set = (key, refresh = true) => async (value) => {
    state[key] = typeof START[key] === "number" ? Number(value) : value;
    choose({ [key]: value, started: null });
    if (refresh) await forget(state, view);
  };
  view.classes = chooser(t("classes", "클래스"), CHOICES.classes, state.classes, set("classes"));
  const noise = el("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.noise });
  noise.addEventListener("change", () => set("noise")(noise.value));
  view.noise = el("label", { class: "field" }, t("noise", "잡음"), noise);
  const hidden = el("input", { type: "text", value: state.hidden, inputmode: "numeric", maxlength: 40 });
  hidden.addEventListener("change", () => set("hidden", false)(hidden.value));
  view.brushes = el("div", { class: "row", role: "group", "aria-label": t("Class of the next point", "다음 점의 클래스") });
  view.clear = el("button", { type: "button", text: t("Remove all points", "모든 점 지우기"), onclick: () => { state.own = []; forget(state, view); } });
  view.start = el("button", { type: "button", class: "main", disabled: !mayAct, text: t("Train", "학습"), onclick: () => start(state, view) });
  view.stop = el("button", { type: "button", disabled: true, text: t("Stop", "중지"), onclick: () => {
    view.stop.disabled = true;
    view.stopped = true;
    view.status.textContent = t("Stopping …", "중지하는 중 …");
    turn(state, view, true);
  } });
  return el("section", { class: "card", "aria-label": t("Settings", "설정") },
    chooser(t("points", "점"), Object.keys(KINDS), state.kind, set("kind"), (kind) => KINDS[kind]()),
    view.classes, view.noise, view.brushes, view.clear,
    el("label", { class: "field" }, t("hidden layers: their widths", "은닉층: 각 층의 너비"), hidden),
    chooser(t("activation", "활성화 함수"), CHOICES.activation, state.activation, set("activation", false)),
    chooser(t("steps", "스텝"), CHOICES.steps, state.steps, set("steps", false), (steps) => Number(steps).toLocaleString()),
    el("div", { class: "row" }, view.start, view.stop));
}

/** Learning rate and weight decay, on a logarithmic scale; they can be turned while it trains. */
function sliders(state, view) {
  const made = (key, label, least, most, value, read) => {
    const output = el("output", { text: short(read(value)) });
    const input = el("input", { type: "range", min: least, max: most, step: 0.1, value, "aria-label": label });
    state[key] = read(value);
    input.addEventListener("input", () => {
      state[key] = read(Number(input.value));
      output.textContent = short(state[key]);
      clearTimeout(view.turning);
      view.turning = setTimeout(() => turn(state, view), 150);
    });
    return el("label", { class: "field" }, el("span", {}, `${label}: `, output), input);
  };
  return el("div", {},
    made("learning_rate", t("learning rate", "학습률"), -4, 0, -2, (x) => 10 ** x),
    made("weight_decay", t("regularisation (weight decay)", "정규화 (가중치 감쇠)"), -3, 1, -3, (x) => (x <= -3 ? 0 : 10 ** x)));
}

async function turn(state, view, stop = false) {
  if (state.number === null) return;
  try {
    await post(`api/playground/${state.number}/controls`, { learning_rate: state.learning_rate, weight_decay: state.weight_decay, stop });
  } catch (error) {
    problem(view.note, error);
    if (!stop) return;
    view.stop.disabled = view.stopped = false; // it still trains
    view.status.textContent = "";
  }
}

/** Points by clicking, or by arrow keys and Enter. */
function ownPoints(state, view) {
  const put = (x, y) => {
    if (state.kind !== "own" || state.own.length >= 2000) return;
    state.own.push([Number(x.toFixed(3)), Number(y.toFixed(3)), state.brush]);
    forget(state, view);
  };
  view.canvas.addEventListener("click", (event) => {
    const box = view.canvas.getBoundingClientRect();
    const within = (v) => Math.max(-SPAN, Math.min(SPAN, v));
    put(within(((event.clientX - box.left) / box.width * 2 - 1) * SPAN), within((1 - (event.clientY - box.top) / box.height * 2) * SPAN));
  });
  state.cursor = null;
  view.canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.25, 0], ArrowRight: [0.25, 0], ArrowUp: [0, 0.25], ArrowDown: [0, -0.25] }[event.key];
    if (state.kind !== "own" || (!step && event.key !== "Enter")) return;
    event.preventDefault();
    state.cursor = state.cursor || [0, 0];
    if (step) state.cursor = state.cursor.map((v, i) => Math.max(-SPAN, Math.min(SPAN, v + step[i])));
    else put(...state.cursor);
    draw(state, view);
  });
  view.canvas.addEventListener("blur", () => { state.cursor = null; draw(state, view); });
  fill(view.brushes, [0, 1, 2, 3].map((label) => el("button", {
    type: "button", class: `brush class${label}`, "aria-pressed": String(label === state.brush), text: `${t("class", "클래스")} ${label}`,
    onclick: (event) => {
      state.brush = label;
      for (const button of view.brushes.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
    },
  })));
}

/** Other points: what was learned no longer belongs to them. */
async function forget(state, view) {
  if (watching) watching.close();
  watching = null;
  if (state.number !== null && !view.stop.disabled) turn(state, view, true);
  state.number = null;
  view.stop.disabled = true;
  state.frame = null;
  fill(view.units);
  fill(view.curve);
  view.unitsCard.hidden = true;
  view.numbers.textContent = view.status.textContent = "";
  await refreshPoints(state, view);
  draw(state, view);
}

async function refreshPoints(state, view) {
  const own = state.kind === "own";
  view.classes.hidden = own || state.kind === "xor";
  view.noise.hidden = own;
  view.brushes.hidden = view.clear.hidden = !own;
  view.canvas.classList.toggle("own", own);
  view.legend.textContent = own
    ? t("Click to put points of at least two classes, ten in all; or arrow keys and Enter. A fifth is held out for validation, a fifth for the test.", "클릭하여 두 클래스 이상, 모두 10개 이상의 점을 찍으세요. 화살표 키와 Enter도 됩니다. 5분의 1은 검증, 5분의 1은 시험에 씁니다.")
    : t("Filled: points it learns from. Rings: validation points, which it does not see.", "채워진 점: 학습용. 고리: 학습에 쓰지 않는 검증용.");
  if (own) {
    state.points = { train: state.own, val: [] };
    return;
  }
  try {
    if (mayAct) state.points = await post("api/playground/points", { kind: state.kind, classes: state.classes, noise: state.noise });
    problem(view.note, null);
  } catch (error) {
    problem(view.note, error);
  }
}

async function start(state, view) {
  const hidden = state.hidden.split(/[\s,]+/).filter(Boolean).map(Number);
  if (watching) watching.close();
  if (state.number !== null && !view.stop.disabled) await turn(state, view, true);
  view.start.disabled = true;
  problem(view.note, null);
  try {
    const { number, line } = await post("api/playground/start", {
      kind: state.kind, classes: state.classes, noise: state.noise, points: state.kind === "own" ? state.own : null, hidden,
      activation: state.activation, steps: state.steps, learning_rate: state.learning_rate, weight_decay: state.weight_decay,
    });
    fill(view.line, t("The same in a terminal: ", "터미널에서 같은 실행: "), el("code", { text: line }));
    choose({ started: number });
    watch(state, view, number);
  } catch (error) {
    problem(view.note, error);
  }
  view.start.disabled = !mayAct;
}

/** Shows the frames of a training as they come. */
function watch(state, view, number) {
  if (!mayAct) return;
  const connection = watching = socket(`api/playground/${number}`);
  state.number = number;
  state.frame = null;
  view.stop.disabled = false;
  view.stopped = false;
  view.status.textContent = t("Starting: it takes a few seconds until the framework is loaded.", "시작하는 중입니다. 몇 초 걸립니다.");
  let waiting = null;
  const current = () => connection === watching && state.mine === shown;
  connection.addEventListener("message", (event) => {
    if (!current()) return;
    const told = JSON.parse(event.data);
    if ("ended" in told) {
      ended(view, told);
      return;
    }
    if (!waiting) requestAnimationFrame(() => {
      if (current()) { state.frame = waiting; draw(state, view); tell(state, view); }
      waiting = null;
    });
    waiting = told;
  });
  connection.addEventListener("close", () => {
    if (!current()) return;
    view.stop.disabled = true;
    watching = null;
    if (!state.frame && !waiting) view.status.textContent = ""; // a training of another server, or one that never began
  });
}

function ended(view, told) {
  view.stop.disabled = true;
  if (told.ended === 0) view.status.textContent = t("Finished and tested; it is the first in the list of runs.", "학습과 시험이 끝났습니다. 실행 목록의 맨 위에 있습니다.");
  else if (view.numbers.textContent || view.stopped) view.status.textContent = t("Stopped; it can be resumed in the list of runs.", "중지되었습니다. 실행 목록에서 다시 시작할 수 있습니다.");
  else {
    view.status.textContent = "";
    problem(view.note, new Error(told.said.split("\n").slice(-6).join("\n")));
  }
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Numbers, curves and units of the newest frame. */
function tell(state, view) {
  const { frame } = state;
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  view.status.textContent = view.stopped ? t("Stopping …", "중지하는 중 …") : t("Training …", "학습 중 …");
  view.numbers.textContent = t(
    `Step ${frame.step.toLocaleString()}: ${percent(frame.val[1])} of the validation points are right, ${percent(frame.train[1])} of the training points`,
    `${frame.step.toLocaleString()} 스텝: 검증 점의 ${percent(frame.val[1])}, 학습 점의 ${percent(frame.train[1])}가 맞습니다`);
  view.numbers.dataset.accuracy = frame.val[1];
  view.canvas.dataset.step = frame.step;
  view.canvas.dataset.frames = frame.frames;
  fill(view.curve, curves(frame.curve));
  view.unitsCard.hidden = !frame.layers.length;
  if (view.units.childElementCount !== frame.layers.length) fill(view.units, frame.layers.map(layerOf));
  frame.layers.forEach((layer, l) => {
    const maps = bytes(layer.maps), size = frame.unit_size;
    [...view.units.children[l].querySelectorAll("canvas")].forEach((canvas, u) => {
      const image = new ImageData(size, size);
      for (let i = 0; i < size * size; i++) {
        const value = (maps[u * size * size + i] - 128) / 127, sure = Math.min(1, Math.abs(value)), towards = value < 0 ? NEGATIVE : POSITIVE;
        for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * (1 - sure) + towards[c] * sure;
        image.data[4 * i + 3] = 255;
      }
      canvas.width = canvas.height = size;
      canvas.getContext("2d").putImageData(image, 0, 0);
    });
  });
}

function layerOf(layer, number) {
  const name = t(`layer ${number + 1}: ${layer.count} units`, `${number + 1}층: 유닛 ${layer.count}개`);
  const maps = Array.from({ length: Math.min(layer.count, 16) }, (_, u) => el("canvas", { class: "pixels unit", role: "img", "aria-label": `${name}, ${t("unit", "유닛")} ${u + 1}` }));
  return el("div", {}, el("h3", { text: name }), el("div", { class: "maps" }, maps));
}

/** Losses by step, and the validation accuracy. */
function curves(rows) {
  const width = 320, height = 150, left = 34, bottom = 18;
  const last = Math.max(rows[rows.length - 1][0], 1), most = Math.max(...rows.map((row) => Math.max(row[1], row[2])), 0.1);
  const x = (step) => left + (width - left - 4) * step / last, y = (value, top) => 6 + (height - bottom - 6) * (1 - Math.min(value, top) / top);
  const path = (column, top) => rows.map((row) => `${x(row[0]).toFixed(1)},${y(row[column], top).toFixed(1)}`).join(" ");
  const figure = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": t("Losses and accuracy by step", "스텝별 손실과 정확도") },
    el("line", { x1: left, x2: width - 4, y1: y(0, 1), y2: y(0, 1), class: "axis" }),
    el("text", { x: left - 4, y: 14, "text-anchor": "end", text: short(most) }), el("text", { x: left - 4, y: y(0, 1), "text-anchor": "end", text: "0" }),
    el("text", { x: width - 4, y: height - 3, "text-anchor": "end", text: last.toLocaleString() }),
    el("polyline", { points: path(1, most), class: "curve train" }), el("polyline", { points: path(2, most), class: "curve val" }),
    el("polyline", { points: path(3, 1), class: "curve accuracy" }));
  return el("figure", { class: "plot" }, figure, el("figcaption", { class: "soft" },
    el("span", { class: "key train", text: t("training loss", "학습 손실") }), el("span", { class: "key val", text: t("validation loss", "검증 손실") }),
    el("span", { class: "key accuracy", text: t("validation accuracy (top: 100 %)", "검증 정확도 (위: 100 %)") })));
}

/** The plane in the colours of the classes, and the points. */
function draw(state, view) {
  const context = view.canvas.getContext("2d"), { frame } = state;
  context.fillStyle = colour("--ground");
  context.fillRect(0, 0, SIDE, SIDE);
  if (frame) {
    const small = document.createElement("canvas"), { size } = frame, plane = bytes(frame.plane), classes = plane.length / size / size;
    small.width = small.height = size;
    const image = new ImageData(size, size);
    const own = state.kind === "own" ? [...new Set(state.own.map((point) => point[2]))].sort((a, b) => a - b) : []; // by the network's number
    for (let i = 0; i < size * size; i++) {
      let best = 0;
      for (let k = 1; k < classes; k++) if (plane[k * size * size + i] > plane[best * size * size + i]) best = k;
      const sure = 0.1 + 0.5 * Math.max(0, plane[best * size * size + i] / 255 - 1 / classes) / (1 - 1 / classes);
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * (1 - sure) + COLOURS[(own[best] ?? best) % 8][c] * sure;
      image.data[4 * i + 3] = 255;
    }
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, SIDE, SIDE);
  }
  const place = (x, y) => [(x / SPAN + 1) * SIDE / 2, (1 - y / SPAN) * SIDE / 2];
  for (const [points, filled] of [[state.points.val, false], [state.points.train, true]]) {
    for (const [x, y, label] of points) {
      context.beginPath();
      context.arc(...place(x, y), filled ? 4.5 : 3.5, 0, 2 * Math.PI);
      const shade = `rgb(${COLOURS[label % 8].join(" ")})`;
      context.fillStyle = shade;
      context.strokeStyle = filled ? "#fff" : shade;
      context.lineWidth = filled ? 1 : 1.5;
      if (filled) context.fill();
      context.stroke();
    }
  }
  if (state.cursor) {
    context.strokeStyle = colour("--accent");
    context.lineWidth = 2;
    const [x, y] = place(...state.cursor);
    context.strokeRect(x - 7, y - 7, 14, 14);
  }
  view.canvas.setAttribute("aria-label", t(
    `The plane with ${state.points.train.length} points`, `점 ${state.points.train.length}개가 있는 평면`));
}

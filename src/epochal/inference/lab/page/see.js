// The room of networks that classify images: draw, choose or drop a picture, and see what each layer makes of it.

import { choose, el, fill, get, mayAct, offer, post, problem, runPicker, short, t } from "./base.js";
import { bytes, pad, paintMap, paintPicture, picturePlace, shelf } from "./pictures.js";

const SIDE = 280; // pixels of the drawing, and about those of the picture that the network sees
const SENT = 112; // pixels of its side as it is sent
const QUICK = 45; // milliseconds: where all takes longer, only the probabilities follow the pen
const EVERY = 2000; // milliseconds between two looks for new weights
const BARS = 10; // classes that are shown

let shownRun = 0; // grows with each network that is opened: answers to an earlier one are dropped
let timer = null;

export const room = {
  name: "see",
  title: t("See it", "들여다보기"),
  async show(main, query) {
    const space = el("div");
    const picker = await runPicker("see", query.get("run"), (run) => (run ? open(space, run, query) : null));
    main.append(picker, space);
    if (picker.hidden) main.append(offer("model=lenet dataset=digits", t("No run here classifies pictures yet. This one learns to read digits in 15 seconds:", "아직 그림을 분류하는 실행이 없습니다. 15초 만에 숫자 읽기를 배우는 실행입니다:")));
  },
  hide() {
    clearInterval(timer);
    shownRun += 1;
  },
};

async function open(space, run, query) {
  clearInterval(timer);
  const view = { run, mine: ++shownRun, picture: null, found: null, ofClass: null, most: 24, unit: null, history: [], took: 0, going: false, next: null };
  view.note = el("p", { class: "problem", role: "status", hidden: true });
  fill(space, view.note);
  if (!mayAct) return;
  try {
    view.about = await post(`api/see/${run.id}/about`);
  } catch (error) {
    problem(view.note, error);
    return;
  }
  if (view.mine !== shownRun) return;
  view.unitBox = el("div", { class: "unit", "aria-live": "polite" });
  view.layers = el("div");
  view.attention = el("section", { class: "card", hidden: true, "aria-label": t("Attention of each block", "블록별 어텐션") });
  fill(space, view.note,
    el("div", { class: "columns" }, pictureCard(view), seenCard(view), saysCard(view)),
    shelfCard(view, query),
    layersCard(view), view.attention, filtersCard(view.about));
}

// -- the picture ------------------------------------------------------------------------------------------------------

function pictureCard(view) {
  view.pad = pad({
    width: SIDE, height: SIDE, pen: Math.max(0.085, 0.9 / Math.max(...view.about.shape.slice(1))) * SIDE, // one pixel of a small picture
    sent: SENT, bright: view.about.bright, changed: (full) => show(view, view.pad.read, full) });
  return picturePlace(view.pad, t("Draw", "그리기"), `api/see/${view.run.id}/file`, view.note, (pixels) => show(view, () => ({ pixels })));
}

/** The run's own test pictures. */
function shelfCard(view, query) {
  const name = (found, n) => view.about.classes[found.labels[n]];
  const { card, press } = shelf(`api/see/${view.run.id}/shelf`, Number(query.get("picture")) || 0, name, (number, first) => {
    if (first && view.picture) return;
    view.pad.wipe();
    show(view, () => ({ test: number }));
  });
  view.press = press;
  return card;
}

// -- what the network says --------------------------------------------------------------------------------------------

/** Asks about another picture. `full` is false while the pen moves. */
function show(view, picture, full = true) {
  view.picture = picture;
  for (const part of [view.says, view.seenBox]) part.classList.add("stale"); // what stands there is of the picture before
  view.examined = null;
  view.history = [];
  look(view, full);
}

/** Asks about the picture; while an answer is on its way only the newest question waits. */
async function look(view, full = true) {
  if (!view.picture) return;
  if (view.going) { view.next = full || view.next === true; return; }
  view.going = true;
  const layers = full || view.took < QUICK;
  const began = performance.now();
  try {
    const picture = view.picture();
    const found = await post(`api/see/${view.run.id}/look`, { picture, layers, maps: view.most, heat: view.ofClass });
    if (view.mine !== shownRun) return;
    const took = performance.now() - began;
    if (layers) view.took = took;
    view.found = layers ? found : { ...view.found, ...found, truth: found.truth, heat: null };
    drawAll(view, picture, took, layers);
    if (view.next === null) for (const part of [view.says, view.seenBox]) part.classList.remove("stale");
    problem(view.note, null);
    if (full && view.unit) examine(view, view.unit);
  } catch (error) {
    if (view.mine === shownRun) problem(view.note, error);
  } finally {
    view.going = false;
  }
  if (view.next !== null && view.mine === shownRun) {
    const next = view.next;
    view.next = null;
    look(view, next);
  }
}

function drawAll(view, picture, took, layers) {
  const { found } = view;
  choose({ picture: picture.test ?? null });
  view.press(picture.test);
  view.seen = bytes(found.seen);
  drawBars(view);
  view.time.textContent = `${Math.round(took)} ms · ${t("weights of step", "가중치의 스텝")} ${found.step.toLocaleString()}`;
  if (view.history.at(-1)?.step !== found.step) view.history.push({ step: found.step, probabilities: found.probabilities });
  else view.history.at(-1).probabilities = found.probabilities;
  drawHistory(view);
  if (layers) {
    drawLayers(view);
    drawAttention(view);
  }
  drawSeen(view);
}

function saysCard(view) {
  view.bars = el("div", { class: "bars classes" });
  view.told = el("p", { class: "told", role: "status", text: t("Draw, or choose a picture.", "그림을 그리거나 고르세요.") });
  view.time = el("p", { class: "soft" });
  view.chart = el("div");
  const follow = el("input", { type: "checkbox" });
  let stamp = null;
  follow.addEventListener("change", () => {
    clearInterval(timer);
    if (!follow.checked) return;
    const ask = async () => {
      try {
        const now = await get(`api/see/${view.run.id}/stamp`);
        if (stamp !== null && now.stamp !== stamp) look(view);
        stamp = now.stamp;
      } catch (error) {
        problem(view.note, error);
      }
    };
    timer = setInterval(ask, EVERY);
    ask();
  });
  view.says = el("div", {}, view.told, view.bars, view.time);
  return el("section", { class: "card says", "aria-label": t("What it says", "예측") }, el("h2", { text: t("What it says", "예측") }), view.says,
    el("label", { class: "row tick" }, follow, t("Follow the training: ask again whenever it has better weights", "학습 따라가기: 더 나은 가중치가 저장될 때마다 다시 묻기")), view.chart);
}

function drawBars(view) {
  const { probabilities, best, truth, heat } = view.found, { classes } = view.about;
  let chosen = classes.map((_, i) => i);
  if (classes.length > BARS) chosen = chosen.sort((a, b) => probabilities[b] - probabilities[a]).slice(0, BARS);
  while (view.bars.childElementCount < chosen.length) {
    const parts = { name: el("code"), filled: el("span", { class: "fill" }), percent: el("span", { class: "percent" }) };
    const bar = el("button", { type: "button", class: "bar" }, parts.name, el("span", { class: "track" }, parts.filled), parts.percent);
    bar.parts = parts;
    bar.addEventListener("click", () => { view.ofClass = view.ofClass === bar.index ? null : bar.index; look(view); });
    view.bars.append(bar);
  }
  chosen.forEach((i, n) => {
    const bar = view.bars.children[n], { name, filled, percent } = bar.parts;
    bar.index = i;
    bar.classList.toggle("best", i === best);
    name.textContent = classes[i];
    filled.style.width = `${100 * probabilities[i]}%`;
    percent.textContent = percentage(probabilities[i]);
    if (heat?.class === null) bar.removeAttribute("aria-pressed");
    else bar.setAttribute("aria-pressed", String(i === view.ofClass));
  });
  view.told.textContent = `${classes[best]} · ${percentage(probabilities[best])}`;
  if (truth !== undefined) view.told.append(el("span", { class: truth === best ? "good" : "bad", text: truth === best ? t(" ✓ right", " ✓ 정답") : t(` ✗ it is ${classes[truth]}`, ` ✗ 정답은 ${classes[truth]}`) }));
}

const percentage = (p) => `${p > 0.9995 || p < 0.0005 ? Math.round(100 * p) : (100 * p).toFixed(1)} %`;

/** The probabilities of this picture by training step, of the three classes that were the largest. */
function drawHistory(view) {
  if (view.history.length < 2) { fill(view.chart); return; }
  const { history } = view, [wide, high] = [300, 110];
  const steps = history.map((one) => one.step), low = Math.min(...steps), span = Math.max(...steps) - low || 1;
  const peak = (i) => Math.max(...history.map((one) => one.probabilities[i]));
  const chosen = view.about.classes.map((_, i) => i).sort((a, b) => peak(b) - peak(a)).slice(0, 3);
  const lines = chosen.map((i, n) => el("polyline", { class: `curve curve${n}`, points: history.map((one) => `${((one.step - low) / span) * wide},${high - one.probabilities[i] * high}`).join(" ") }));
  const told = chosen.map((i, n) => el("span", { class: `key key${n}`, text: `${view.about.classes[i]} ${percentage(history.at(-1).probabilities[i])}` }));
  const label = t(`Probabilities from step ${low} to ${low + span}`, `스텝 ${low}부터 ${low + span}까지의 확률`);
  fill(view.chart, el("svg", { viewBox: `-2 -2 ${wide + 4} ${high + 4}`, role: "img", "aria-label": label, class: "history" }, lines), el("p", { class: "row soft" }, told, el("span", { text: label })));
}

// -- what it sees -----------------------------------------------------------------------------------------------------

function seenCard(view) {
  view.canvas = el("canvas", { class: "seen", role: "img", hidden: true });
  view.over = el("input", { type: "checkbox", checked: true });
  view.over.addEventListener("change", () => drawSeen(view));
  view.title = el("span");
  view.heatLabel = el("label", { class: "row tick", hidden: true }, view.over, view.title);
  view.outlined = el("p", { class: "soft", text: t("Your picture in the pixels of the network, and where it looks.", "신경망의 픽셀로 본 그림과, 신경망이 주목하는 곳이 나타납니다.") });
  view.seenBox = el("div", {}, view.canvas, view.heatLabel, view.outlined);
  return el("section", { class: "card", "aria-label": t("What it sees", "입력") }, el("h2", { text: t("What it sees", "신경망이 보는 그림") }), view.seenBox);
}

function drawSeen(view) {
  const { shape } = view.about, { heat } = view.found, [, height, width] = shape;
  const scale = Math.max(1, Math.round(SIDE / Math.max(height, width)));
  view.canvas.hidden = false;
  paintEnlarged(view.canvas, view, scale);
  view.canvas.setAttribute("aria-label", t(`The picture in ${width} x ${height} pixels, as the network reads it`, `신경망이 읽는 ${width} x ${height} 픽셀의 그림`));
  view.heatLabel.hidden = !heat;
  if (heat) {
    const of = heat.class === null ? "" : ` · ${view.about.classes[heat.class]}`;
    view.title.textContent = `${heat.title}${of}`;
    view.heatLabel.title = heat.class === null ? "" : t("Click a class to see what speaks for it", "클래스를 누르면 그 근거가 보입니다");
    if (view.over.checked) {
      const context = view.canvas.getContext("2d"), map = el("canvas");
      paintMap(map, bytes(heat.values), 0, heat.shape, false);
      context.globalAlpha = 0.45;
      context.imageSmoothingEnabled = true;
      context.drawImage(map, 0, 0, width * scale, height * scale);
      context.globalAlpha = 1;
    }
  }
  const examined = view.examined;
  view.outlined.textContent = "";
  if (examined?.patch) {
    outline(view.canvas, examined.patch, scale);
    view.outlined.textContent = t(`Outlined: what excites map ${examined.channel} of ${examined.layer} most.`, `테두리: ${examined.layer}의 맵 ${examined.channel}을 가장 크게 하는 부분`);
  }
}

/** The picture that the network sees, each of its pixels a square. */
function paintEnlarged(canvas, view, scale) {
  const [, height, width] = view.about.shape, plain = el("canvas");
  paintPicture(plain, view.seen, view.about.shape, 0);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(plain, 0, 0, canvas.width, canvas.height);
}

function outline(canvas, [top, left, height, width], scale, dashed = false) {
  const context = canvas.getContext("2d");
  const box = [left * scale + 1.5, top * scale + 1.5, Math.max(2, width * scale - 3), Math.max(2, height * scale - 3)];
  for (const [stroke, thick] of [["#000", 5], ["#2fd6ff", 3]]) { // seen on any picture
    Object.assign(context, { strokeStyle: stroke, lineWidth: dashed ? thick - 2 : thick });
    context.setLineDash(dashed ? [6, 4] : []);
    context.strokeRect(...box);
  }
}

// -- from layer to layer ----------------------------------------------------------------------------------------------

function layersCard(view) {
  const most = el("select", {}, [24, 64, 256].map((n) => el("option", { value: n, text: n })));
  most.addEventListener("change", () => { view.most = Number(most.value); look(view); });
  return el("section", { class: "card", "aria-label": t("From layer to layer", "층에서 층으로") },
    el("h2", { text: t("From layer to layer", "층에서 층으로") }),
    el("p", { class: "soft", text: t("What each layer makes of the picture. Black is 0 and yellow a large value; where a layer has values below 0, white is 0, red above and blue below it. Choose a map to see what excites it, and the weights that make it.", "각 층이 그림으로 만드는 것입니다. 검정은 0, 노랑은 큰 값입니다. 음수가 있는 층에서는 하양이 0, 빨강이 양수, 파랑이 음수입니다. 맵을 고르면 그 맵을 크게 하는 부분과 가중치가 보입니다.") }),
    el("label", { class: "row soft" }, t("maps of a layer, at most", "층마다 보여 줄 맵의 최대 개수"), most), view.layers);
}

function drawLayers(view) {
  const { layers } = view.found;
  const key = JSON.stringify(layers.map((layer) => [layer.name, layer.shape, layer.shown.length]));
  if (view.layers.dataset.key !== key) {
    view.layers.dataset.key = key;
    view.unitBox.remove();
    view.layers.replaceChildren(...layers.map((layer) => layerRow(view, layer)));
    if (!layers.length) view.layers.append(el("p", { class: "soft", text: t("This network has no layers that can be drawn.", "그릴 수 있는 층이 없는 신경망입니다.") }));
  }
  layers.forEach((layer, l) => {
    const values = bytes(layer.values), [, height, width] = layer.shape;
    [...view.layers.children].filter((row) => row.classList.contains("stage"))[l].querySelectorAll("button.map").forEach((button, n) => {
      paintMap(button.firstChild, values, n, [height, width], layer.signed);
      button.channel = layer.shown[n];
      button.setAttribute("aria-label", t(`Map ${layer.shown[n]} of ${layer.name}, largest value ${short(layer.largest[n])}`, `${layer.name}의 맵 ${layer.shown[n]}, 최댓값 ${short(layer.largest[n])}`));
      button.title = `${layer.shown[n]} · ${short(layer.largest[n])}`;
    });
  });
  markUnit(view);
}

function layerRow(view, layer) {
  const [count, height, width] = layer.shape;
  const which = layer.shown.length < count ? t(`, the strongest ${layer.shown.length}`, `, 강한 ${layer.shown.length}개`) : "";
  const size = height * width === 1 ? t(`${count} units`, `유닛 ${count}개`) : t(`${count} maps of ${height} x ${width}`, `${height} x ${width} 맵 ${count}개`);
  const maps = layer.shown.map(() => {
    const canvas = el("canvas", { class: "pixels" });
    canvas.style.aspectRatio = `${width} / ${height}`;
    const button = el("button", { type: "button", class: height * width === 1 ? "plain map one" : "plain map" }, canvas);
    button.addEventListener("click", () => examine(view, { layer: layer.name, channel: button.channel }));
    return button;
  });
  const row = el("div", { class: "stage" }, el("h3", { text: `${layer.name}: ${size}${which}` }), el("div", { class: "maps" }, maps));
  row.layer = layer.name;
  return row;
}

function markUnit(view) {
  for (const row of view.layers.querySelectorAll(".stage")) {
    for (const button of row.querySelectorAll("button.map")) button.setAttribute("aria-pressed", String(view.unit !== null && row.layer === view.unit.layer && button.channel === view.unit.channel));
  }
}

function drawAttention(view) {
  const { attention } = view.found;
  view.attention.hidden = !attention.length;
  if (!attention.length) return;
  const rows = attention.map((block) => {
    const values = bytes(block.values), [heads, ...size] = block.shape;
    const maps = Array.from({ length: heads }, (_, n) => {
      const canvas = el("canvas", { class: "pixels head", role: "img", "aria-label": t(`Attention of head ${n + 1} of ${block.name}`, `${block.name}의 헤드 ${n + 1} 어텐션`) });
      paintMap(canvas, values, n, size, false);
      return canvas;
    });
    return el("div", { class: "heads2" }, el("h3", { text: block.name }), el("div", { class: "maps" }, maps));
  });
  fill(view.attention, el("h2", { text: t("Attention of each block", "블록별 어텐션") }),
    el("p", { class: "soft", text: t("Where each head looks, from the class token (or on average over all patches): black little, yellow most.", "각 헤드가 클래스 토큰에서(없으면 모든 패치의 평균으로) 보는 곳: 검정은 적게, 노랑은 가장 많이.") }),
    el("div", { class: "blocks" }, rows));
}

// -- one unit ---------------------------------------------------------------------------------------------------------

/** Shows what excites a map, below the layer that it is in. */
async function examine(view, unit) {
  view.unit = unit;
  markUnit(view);
  try {
    const found = await post(`api/see/${view.run.id}/unit`, { picture: view.picture(), ...unit });
    if (view.mine !== shownRun || view.unit !== unit) return;
    view.examined = found;
    drawUnit(view, found);
    drawSeen(view);
  } catch (error) {
    if (view.mine === shownRun) problem(view.note, error);
  }
}

function closeUnit(view) {
  const pressed = view.layers.querySelector("button.map[aria-pressed=true]");
  view.unit = view.examined = null;
  view.unitBox.remove();
  markUnit(view);
  drawSeen(view);
  pressed?.focus();
}

function drawUnit(view, found) {
  const [, height, width] = view.about.shape, scale = Math.max(1, Math.round(140 / Math.max(height, width)));
  const whole = el("canvas", { role: "img", "aria-label": t("The picture with the patch outlined", "테두리를 그린 그림") });
  paintEnlarged(whole, view, scale);
  const parts = [unitMap(view, found)];
  if (found.patch) {
    if (found.field[2] * found.field[3] < height * width && String(found.field) !== String(found.patch)) outline(whole, found.field, scale, true);
    outline(whole, found.patch, scale);
    const [top, left, high, wide] = found.patch, cut = el("canvas", { role: "img", "aria-label": t("The patch, enlarged", "확대한 부분") });
    const whichScale = Math.max(1, Math.floor(140 / Math.max(high, wide)));
    cut.width = wide * whichScale;
    cut.height = high * whichScale;
    const plain = el("canvas"), context = cut.getContext("2d");
    paintPicture(plain, view.seen, view.about.shape, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(plain, left, top, wide, high, 0, 0, cut.width, cut.height);
    const gradient = el("canvas", { class: "pixels", role: "img", "aria-label": t("The gradient of the unit by each pixel", "각 픽셀에 대한 유닛의 기울기") });
    paintMap(gradient, bytes(found.gradient), 0, [height, width], true);
    parts.push(figure(whole, t(`it depends on ${found.field[2]} x ${found.field[3]} pixels here`, `여기서 ${found.field[2]} x ${found.field[3]} 픽셀에 의존합니다`)),
      figure(cut, t("the patch that excites it most", "가장 크게 하는 부분")), figure(gradient, t("brighter (red) or darker (blue) raises it", "밝게(빨강) 또는 어둡게(파랑) 하면 커집니다")));
  } else {
    parts.push(figure(whole, t("nothing here changes it: the unit is silent", "이 그림의 어떤 픽셀도 바꾸지 못합니다: 꺼진 유닛")));
  }
  fill(view.unitBox, el("div", { class: "row head" }, el("h3", { text: t(`Map ${found.channel} of ${found.layer}: ${short(found.value)} at row ${found.place[0]}, column ${found.place[1]}`, `${found.layer}의 맵 ${found.channel}: ${found.place[0]}행 ${found.place[1]}열에서 ${short(found.value)}`) }),
    el("button", { type: "button", text: t("Close", "닫기"), onclick: () => closeUnit(view) })),
  el("div", { class: "figures" }, parts), kernelRow(view, found));
  const row = [...view.layers.children].find((one) => one.layer === found.layer);
  if (row && view.unitBox.previousSibling !== row) row.after(view.unitBox);
}

const figure = (canvas, caption) => el("figure", {}, canvas, el("figcaption", { class: "soft", text: caption }));

/** The map itself; a click or the arrow keys choose another place of it. */
function unitMap(view, found) {
  const [, height, width] = found.map.shape, scale = Math.max(1, Math.round(140 / Math.max(height, width)));
  const plain = el("canvas"), canvas = el("canvas", { tabindex: 0, role: "application", "aria-label": t("The map: arrow keys choose another place", "맵: 방향키로 다른 자리를 고릅니다") });
  paintMap(plain, bytes(found.map.values), 0, [height, width], found.map.signed);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(plain, 0, 0, canvas.width, canvas.height);
  outline(canvas, [...found.place, 1, 1], scale);
  const go = async (row, column) => {
    if (row < 0 || column < 0 || row >= height || column >= width) return;
    await examine(view, { layer: found.layer, channel: found.channel, place: [row, column] });
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    go(Math.floor(((event.clientY - box.top) / box.height) * height), Math.floor(((event.clientX - box.left) / box.width) * width));
  });
  canvas.addEventListener("keydown", async (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    await go(found.place[0] + step[0], found.place[1] + step[1]);
    view.unitBox.querySelector("canvas[tabindex]")?.focus();
  });
  return figure(canvas, t("its map; choose another place in it", "맵; 다른 자리를 고를 수 있습니다"));
}

function kernelRow(view, found) {
  const { kernel } = found;
  if (!kernel) return null;
  const values = bytes(kernel.values), [inputs, height, width] = kernel.shape;
  const drawn = kernel.shown.map((input, n) => {
    const canvas = el("canvas", { class: height * width === 1 ? "pixels kernel one" : "pixels kernel", role: "img", "aria-label": t(`Weights for input ${input}`, `입력 ${input}의 가중치`), title: String(input) });
    paintMap(canvas, values, n, [height, width], true);
    return canvas;
  });
  const which = kernel.shown.length < inputs ? t(`, the strongest ${kernel.shown.length} of ${inputs}`, `, ${inputs}개 중 강한 ${kernel.shown.length}개`) : "";
  const size = height * width === 1 ? t("one weight for each input", "입력마다 가중치 하나") : t(`${height} x ${width} weights for each input`, `입력마다 ${height} x ${width} 가중치`);
  return el("div", {}, el("p", { class: "soft" }, t("Its kernel, ", "커널, "), el("code", { text: kernel.name }), `: ${size}${which}. `, t("Red is positive, blue negative, white zero.", "빨강은 양수, 파랑은 음수, 하양은 0입니다.")), el("div", { class: "maps" }, drawn));
}

function filtersCard({ filters }) {
  if (!filters) return null;
  const [shown, channels, height, width] = filters.shape, values = bytes(filters.values);
  const drawn = Array.from({ length: shown }, (_, n) => {
    const canvas = el("canvas", { class: "pixels kernel", role: "img", "aria-label": t(`Filter ${n + 1}`, `필터 ${n + 1}`) });
    if (channels === 3) paintPicture(canvas, values, [3, height, width], n);
    else paintMap(canvas, values, n * channels, [height, width], true);
    return canvas;
  });
  const which = shown < filters.count ? t(`The strongest ${shown} of ${filters.count}. `, `${filters.count}개 중 강한 ${shown}개. `) : "";
  const legend = channels === 3 ? t("Grey is a weight of zero, a colour what the filter responds to.", "회색은 가중치 0, 색은 필터가 반응하는 것입니다.") : t("White is a weight of zero; red responds to bright pixels, blue to dark ones.", "하양은 가중치 0, 빨강은 밝은 픽셀에, 파랑은 어두운 픽셀에 반응합니다.");
  return el("section", { class: "card", "aria-label": t("Filters of the first layer", "첫 층의 필터") }, el("h2", { text: t("Filters of the first layer", "첫 층의 필터") }),
    el("p", { class: "soft", text: `${which}${height} x ${width}${t(" pixels, each on a scale of its own, the strongest first. ", " 픽셀, 각자의 척도로, 강한 것부터. ")}${legend}` }), el("div", { class: "maps" }, drawn));
}

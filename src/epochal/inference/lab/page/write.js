// The room of text: a language model chooses its next token in view; a translation, a classifier of texts, a captioner.

import { choose, colour, el, fill, get, lines, mayAct, offer, post, problem, runPicker, t } from "./base.js";
import { captioner } from "./caption.js";

const INTRODUCTIONS = {
  continue: t(
    "A language model reads what stands in the box and gives every token a probability to be the next. You choose, or it draws.",
    "언어 모델은 상자 안의 글을 읽고 모든 토큰에 다음에 올 확률을 매깁니다. 직접 고르거나 모델이 뽑게 하세요."),
  translate: t("A translator reads the whole sentence, then writes another, token by token.", "번역기는 문장 전체를 읽은 뒤 다른 문장을 토큰 단위로 씁니다."),
  classify: t("A classifier says of a text which class it belongs to.", "분류기는 글이 어느 클래스에 속하는지 말합니다."),
  caption: t("A captioner looks at a picture and writes what is in it, word by word.", "캡션 모델은 그림을 보고 그 안에 있는 것을 단어 단위로 씁니다."),
};
const PAUSE = 150; // milliseconds after the last key before the network is asked
let stopping = null; // of what is being written
let asking = null;
let introduction = null; // of what the network does
let kind = 0; // grows with each network that is shown, so that late answers to the last one are dropped

export const room = {
  name: "write",
  title: t("Write", "글쓰기"),
  async show(main, query) {
    const space = el("div");
    introduction = el("p", { class: "soft" });
    main.append(introduction);
    const picker = await runPicker("write", query.get("run"), (run) => (run ? open(space, run, query) : null));
    main.append(picker, space);
    if (!picker.hidden) return;
    introduction.textContent = INTRODUCTIONS.continue;
    main.append(offer("model=gpt dataset=python_stdlib duration=300steps", t("No run here writes text yet. This one learns from Python's own source in a few minutes:", "아직 글을 쓰는 실행이 없습니다. 몇 분 만에 파이썬 소스 코드를 배우는 실행입니다:")));
  },
  hide() {
    stopping?.abort();
    asking?.abort();
    kind += 1;
  },
};

async function open(space, run, query) {
  const text = query.get("text");
  stopping?.abort();
  introduction.textContent = "";
  const mine = ++kind;
  space.replaceChildren(el("p", { class: "soft", text: t("Opening the network …", "신경망을 여는 중 …") }));
  try {
    const about = await get(`api/write/${run.id}`);
    if (mine !== kind) return;
    space.replaceChildren();
    introduction.textContent = INTRODUCTIONS[about.kind];
    if (about.kind === "continue") languageModel(space, run, about, text);
    else if (about.kind === "translate") translator(space, run, text);
    else if (about.kind === "caption") captioner(space, run, about, Number(query.get("picture")) || 0, () => mine === kind);
    else classifier(space, run, text);
  } catch (error) {
    const note = el("p", { class: "card problem", role: "alert" });
    space.replaceChildren(note);
    problem(note, error);
  }
}

/** Sliders of drawing: what they are now, and the elements. */
function sampling(changed) {
  const state = { temperature: 1, top_k: 0, top_p: 1 };
  const slider = (key, label, min, max, step, shown) => {
    const output = el("output", { text: shown(state[key]) });
    const input = el("input", { type: "range", min, max, step, value: state[key], "aria-label": label });
    input.addEventListener("input", () => { state[key] = Number(input.value); output.textContent = shown(state[key]); changed(); });
    return el("label", { class: "field" }, el("span", {}, `${label}: `, output), input);
  };
  const form = el("div", { class: "form" },
    slider("temperature", t("temperature", "온도"), 0, 2, 0.05, (value) => value.toFixed(2)),
    slider("top_k", "top-k", 0, 50, 1, (value) => (value ? String(value) : t("all", "전체"))),
    slider("top_p", "top-p", 0.05, 1, 0.01, (value) => value.toFixed(2)));
  return { state, form };
}

function languageModel(space, run, about, text) {
  const box = el("textarea", { rows: 7, spellcheck: "false", "aria-label": t("Text", "글") });
  box.value = text || (run.dataset === "shakespeare" ? "ROMEO:" : run.dataset === "python_stdlib" ? "def main(" : "The ");
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const waiting = () => el("p", { class: "soft", text: mayAct ? t("Reading …", "읽는 중 …") : t("Open the address that the terminal shows to try it.", "사용하려면 터미널에 표시된 주소를 여세요.") });
  const bars = el("div", { class: "bars" }, waiting());
  const inside = el("div", {}, waiting());
  const { state, form } = sampling(() => look());
  let timer = null;
  let answered = null;
  const look = () => { clearTimeout(timer); timer = setTimeout(ask, PAUSE); };
  const ask = async () => {
    asking?.abort();
    if (!mayAct || box.value === "") return;
    asking = new AbortController();
    const mine = kind;
    try {
      answered = await post(`api/write/${run.id}/next`, { text: box.value, ...state }, asking.signal);
      if (mine !== kind) return;
      problem(note, null);
      drawBars(bars, answered, (token) => { box.value += token.text; remember(); ask(); });
      if (about.looks) drawInside(inside, answered);
    } catch (error) {
      problem(note, error);
    }
  };
  const remember = () => choose({ text: box.value.slice(0, 300) });
  const write = async (length) => {
    stopping?.abort();
    const mine = (stopping = new AbortController());
    go.hidden = true;
    stop.hidden = false;
    try {
      for await (const piece of lines(`api/write/${run.id}/go`, { text: box.value, length, ...state }, mine.signal)) {
        box.value += piece.text;
        box.scrollTop = box.scrollHeight;
        if (piece.alternatives) drawQuick(bars, piece);
      }
    } catch (error) {
      problem(note, error);
    }
    go.hidden = false;
    stop.hidden = true;
    remember();
    if (stopping === mine) ask();
  };
  const go = el("button", { type: "button", class: "main", disabled: !mayAct, text: t("Write on", "이어 쓰기"), onclick: () => write(120) });
  const stop = el("button", { type: "button", hidden: true, text: t("Stop", "멈춤"), onclick: () => stopping?.abort() });
  const one = el("button", { type: "button", disabled: !mayAct, text: t("One token", "토큰 하나"), onclick: () => write(1) });
  box.addEventListener("input", () => { remember(); look(); });
  fill(space,
    el("div", { class: "card" }, box, el("div", { class: "row" }, go, stop, one), form, note),
    el("div", { class: "columns" },
      el("section", { class: "card", "aria-label": t("Next token", "다음 토큰") },
        el("h2", { text: t("The next token", "다음 토큰") }),
        el("p", { class: "soft", text: t("Outlined: what the network says. Filled: what is drawn from, with temperature, top-k and top-p. A click takes the token. The longest bar fills the line.", "테두리: 신경망의 확률. 채움: 온도, top-k, top-p를 적용해 실제로 뽑는 확률. 누르면 그 토큰을 씁니다. 가장 긴 막대가 한 줄을 채웁니다.") }), bars),
      about.looks ? el("section", { class: "card", "aria-label": t("Inside", "내부") }, inside) : null));
  ask();
}

/** As many tokens of equal probability have this entropy (bits). */
const equallyLikely = (entropy) => (2 ** entropy).toLocaleString(undefined, { maximumFractionDigits: entropy < 3 ? 1 : 0 });

function drawBars(place, answered, take) {
  const most = Math.max(...answered.next.map((token) => Math.max(token.probability, token.drawn)), 1e-9);
  place.replaceChildren(...answered.next.slice(0, 14).map((token) => {
    const percent = (100 * token.drawn).toFixed(token.drawn >= 0.1 ? 0 : 1);
    const filled = el("span", { class: "fill" }), outline = el("span", { class: "outline" });
    filled.style.width = `${(100 * token.drawn) / most}%`;
    outline.style.width = `${(100 * token.probability) / most}%`;
    return el("button", { type: "button", class: "bar", onclick: () => take(token), "aria-label": `${token.shown} ${percent} %` },
      el("code", { text: token.shown }), el("span", { class: "track" }, filled, outline), el("span", { class: "percent", text: `${percent} %` }));
  }), el("p", { class: "soft", text: t(`Undecided by ${answered.entropy.toFixed(2)} bits: as if ${equallyLikely(answered.entropy)} tokens were equally likely.`, `불확실성 ${answered.entropy.toFixed(2)}비트: 토큰 ${equallyLikely(answered.entropy)}개가 똑같이 그럴듯한 것과 같습니다.`) }));
}

/** While it writes: the alternatives of the token that came. */
function drawQuick(place, piece) {
  const listed = piece.alternatives.map(([text, value]) => ({ shown: text.replaceAll(" ", "␣").replaceAll("\n", "⏎"), probability: Math.exp(value), drawn: Math.exp(value) }));
  const most = Math.max(...listed.map((token) => token.probability));
  place.replaceChildren(...listed.map((token) => {
    const filled = el("span", { class: "fill" });
    filled.style.width = `${(100 * token.drawn) / most}%`;
    return el("div", { class: "bar" }, el("code", { text: token.shown }), el("span", { class: "track" }, filled), el("span", { class: "percent", text: `${Math.round(100 * token.drawn)} %` }));
  }));
}

/** Attention of each head of the last token, and what each layer would have said. */
function drawInside(place, answered) {
  const layers = answered.attention.length;
  const chosen = { layer: Number(place.dataset.layer || layers - 1), head: place.dataset.head === undefined ? -1 : Number(place.dataset.head) };
  chosen.layer = Math.min(chosen.layer, layers - 1);
  const layer = el("select", { "aria-label": t("Layer", "층") }, answered.attention.map((_, i) => el("option", { value: i, text: `${t("layer", "층")} ${i + 1}`, selected: i === chosen.layer })));
  const heads = answered.attention[chosen.layer].length;
  const head = el("select", { "aria-label": t("Head", "헤드") }, el("option", { value: -1, text: t("mean of the heads", "헤드 평균"), selected: chosen.head < 0 }), Array.from({ length: heads }, (_, i) => el("option", { value: i, text: `${t("head", "헤드")} ${i + 1}`, selected: i === chosen.head })));
  const again = () => { place.dataset.layer = layer.value; place.dataset.head = head.value; const id = document.activeElement?.getAttribute("aria-label"); drawInside(place, answered); [...place.querySelectorAll("select")].find((one) => one.getAttribute("aria-label") === id)?.focus(); };
  layer.addEventListener("change", again);
  head.addEventListener("change", again);
  const weights = chosen.head < 0 || chosen.head >= heads
    ? answered.attention[chosen.layer][0].map((_, i) => answered.attention[chosen.layer].reduce((sum, one) => sum + one[i], 0) / heads)
    : answered.attention[chosen.layer][chosen.head];
  const most = Math.max(...weights, 1e-9);
  const tokens = el("p", { class: "tokens" }, answered.tokens.map((token, i) => tinted(token, weights[i] / most, `${token}: ${Math.round(100 * weights[i])} %`)));
  const small = el("div", { class: "heads" }, answered.attention.map((one, l) => el("div", { class: "row" }, el("span", { class: "soft", text: `${l + 1}` }), one.map((map, h) => {
    const canvas = el("canvas", { width: map.length, height: 1, class: "pixels headmap", title: `${t("layer", "층")} ${l + 1}, ${t("head", "헤드")} ${h + 1}` });
    strip(canvas, map);
    return el("button", { type: "button", class: "plain", "aria-label": `${t("layer", "층")} ${l + 1}, ${t("head", "헤드")} ${h + 1}`, onclick: () => { place.dataset.layer = l; place.dataset.head = h; drawInside(place, answered); } }, canvas);
  }))));
  const lens = el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: t("after layer", "층") }), el("th", { scope: "col", text: t("it would say", "그때의 예측") }))),
    el("tbody", {}, answered.lens.map((best, i) => el("tr", {}, el("td", { text: String(i + 1) }), el("td", {}, best.map(([token, p]) => el("span", { class: "said" }, el("code", { text: token }), el("span", { class: "soft", text: ` ${Math.round(100 * p)} % ` }))))))));
  fill(place,
    el("h2", { text: t("Where the last token looks", "마지막 토큰이 보는 곳") }), el("div", { class: "row" }, layer, head), tokens,
    el("p", { class: "soft", text: t(`The darkest token gets ${Math.round(100 * most)} % of its attention, one without colour none.`, `가장 진한 토큰이 어텐션의 ${Math.round(100 * most)} %를 받고, 색이 없는 토큰은 받지 않습니다.`) }),
    answered.left_out ? el("p", { class: "soft", text: t(`The last ${answered.tokens.length} tokens.`, `마지막 ${answered.tokens.length}개 토큰.`) }) : null,
    el("details", {}, el("summary", { text: t("All heads", "모든 헤드") }), small),
    el("h2", { text: t("What each layer would have said", "각 층의 예측 (logit lens)") }), lens);
}

function strip(canvas, map) {
  const context = canvas.getContext("2d");
  const most = Math.max(...map, 1e-9);
  context.fillStyle = colour("--accent");
  map.forEach((weight, i) => { context.globalAlpha = weight / most; context.fillRect(i, 0, 1, 1); });
}

/** A token whose ground says how strong it is: from 0 to 1, or below 0 in another colour. */
function tinted(token, strength, title) {
  const made = el("span", { class: "token", title, text: token });
  const name = strength < 0 ? "--bad" : "--accent";
  made.style.background = `color-mix(in srgb, var(${name}) ${Math.round(70 * Math.min(1, Math.abs(strength)))}%, transparent)`;
  return made;
}

function translator(space, run, text) {
  const box = el("textarea", { rows: 3, spellcheck: "false", "aria-label": t("Text to translate", "번역할 글") });
  box.value = text || "";
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const result = el("div", { "aria-live": "polite" });
  const go = async (event) => {
    event.preventDefault();
    try {
      const found = await post(`api/write/${run.id}/translate`, { text: box.value });
      choose({ text: box.value.slice(0, 300) });
      problem(note, null);
      drawTranslation(result, found);
    } catch (error) {
      problem(note, error);
    }
  };
  space.append(el("form", { class: "card", onsubmit: go }, box, el("button", { type: "submit", class: "main", disabled: !mayAct, text: t("Translate", "번역") }), note), result);
}

function drawTranslation(place, found) {
  const sources = found.source.map((token) => el("span", { class: "token", text: token }));
  const light = (i) => found.source.forEach((_, j) => {
    const weight = i === null || !found.attention ? 0 : found.attention[i][j];
    sources[j].style.background = `color-mix(in srgb, var(--accent) ${Math.round(80 * weight)}%, transparent)`;
  });
  const targets = found.target.map((token, i) => el("button", { type: "button", class: "token", text: token, onmouseenter: () => light(i), onfocus: () => light(i), onclick: () => light(i) }));
  place.replaceChildren(el("section", { class: "card" },
    el("h2", { text: found.text || t("(nothing)", "(없음)") }),
    el("p", { class: "tokens" }, targets), el("p", { class: "soft", text: found.attention ? t("A token of the translation, pointed at, lights up where it looks in the source:", "번역의 토큰을 가리키면 원문에서 보는 곳이 밝아집니다:") : t("This network has no attention: all it knows of the source is one vector.", "이 신경망에는 어텐션이 없습니다. 원문에 대해 아는 것은 벡터 하나뿐입니다.") }),
    el("p", { class: "tokens" }, sources)));
}

function classifier(space, run, text) {
  const box = el("textarea", { rows: 3, spellcheck: "false", "aria-label": t("Text to judge", "판단할 글") });
  box.value = text || "a moving and funny film , but far too long";
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const result = el("div", { "aria-live": "polite" });
  let timer = null;
  const ask = async () => {
    asking?.abort();
    if (!mayAct || !box.value.trim()) return;
    asking = new AbortController();
    const mine = kind;
    try {
      const found = await post(`api/write/${run.id}/classify`, { text: box.value }, asking.signal);
      if (mine !== kind) return;
      problem(note, null);
      drawClasses(result, found);
    } catch (error) {
      problem(note, error);
    }
  };
  box.addEventListener("input", () => { choose({ text: box.value.slice(0, 300) }); clearTimeout(timer); timer = setTimeout(ask, PAUSE); });
  space.append(el("div", { class: "card" }, box, note), result);
  ask();
}

function drawClasses(place, found) {
  const most = Math.max(...found.weights.map(Math.abs), 1e-9);
  place.replaceChildren(el("section", { class: "card" },
    el("div", { class: "bars" }, found.classes.map(([name, p]) => {
      const filled = el("span", { class: "fill" });
      filled.style.width = `${100 * p}%`;
      return el("div", { class: "bar" }, el("code", { text: name }), el("span", { class: "track" }, filled), el("span", { class: "percent", text: `${Math.round(100 * p)} %` }));
    })),
    el("p", { class: "soft", text: t(`Which tokens speak for “${found.classes[found.chosen][0]}” (blue) and against it (red): gradient × input.`, `“${found.classes[found.chosen][0]}”를 지지하는 토큰(파랑)과 반대하는 토큰(빨강): gradient × input.`) }),
    el("p", { class: "tokens" }, found.tokens.map((token, i) => tinted(token, found.weights[i] / most, found.weights[i].toFixed(3))))));
}

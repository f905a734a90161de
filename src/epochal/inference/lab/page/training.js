// The room of runs: start one, watch its curves grow, stop and resume it; and what each can be tried in.

import { allRuns, choose, colour, el, fill, get, korean, mayAct, post, problem, short, t } from "./base.js";

const EVERY = 2000; // milliseconds between two looks at the runs
const ROOM_NAMES = {
  see: () => t("See it", "들여다보기"),
  write: () => t("Write", "글쓰기"),
  generate: () => t("Generate", "생성하기"),
  chat: () => t("Chat", "대화"),
};
const STATUS = {
  finished: ["good", () => t("finished", "완료")],
  running: ["going", () => t("running", "진행 중")],
  stopped: ["open", () => t("stopped", "중지됨")],
  silent: ["open", () => t("silent", "응답 없음")],
  failed: ["bad", () => t("failed", "실패")],
  pruned: ["open", () => t("pruned", "조기 종료")],
};
// What the form offers as a first choice; all else is typed behind it
const STARTERS = [
  { text: () => t("LeNet reads digits (15 s)", "LeNet이 숫자를 읽습니다 (15초)"), line: "model=lenet dataset=digits" },
  { text: () => t("A ViT reads digits", "ViT가 숫자를 읽습니다"), line: "model=vit dataset=digits" },
  { text: () => t("A GPT learns Python", "GPT가 파이썬을 배웁니다"), line: "model=gpt dataset=python_stdlib duration=300steps" },
  { text: () => t("A captioner names digits", "캡션 모델이 숫자를 읽습니다"), line: "model=captioner dataset=digit_captions dataset.source=digits" },
  { text: () => t("A GAN draws digits", "GAN이 숫자를 그립니다"), line: "model=gan dataset=digits" },
  { text: () => t("A claim, quickly", "주장 하나를 빠르게"), line: "experiment=mlp_vs_cnn budget=smoke" },
];

let timer = null;
let wanted = null; // the run whose details are shown
let started = null; // number of the training that was started here last

export const room = {
  name: "runs",
  title: t("Runs", "실행"),
  async show(main, query) {
    wanted = query.get("run");
    started = query.get("started");
    const view = { table: el("div"), detail: el("div"), told: el("div", { "aria-live": "polite" }), note: el("p", { class: "problem", role: "status", hidden: true }) };
    main.append(form(view), view.told, view.note, view.detail, el("section", { class: "card", "aria-label": t("Runs", "실행") },
      el("div", { class: "row" }, el("h2", { text: t("Runs", "실행") }),
        el("a", { href: "report/", target: "_blank", text: t("Compare all: table, plots, configs side by side", "모두 비교하기: 표, 그림, 설정") })),
      view.table));
    const look = async () => {
      try {
        await refresh(view);
        problem(view.note, null);
      } catch (error) {
        problem(view.note, error);
      }
      timer = main.isConnected ? setTimeout(look, EVERY) : null;
    };
    await look();
  },
  hide() {
    clearTimeout(timer);
  },
};

/** The form that starts a training: one line, as it would be typed, filled in by choices. */
function form(view) {
  const line = el("input", { type: "text", id: "line", spellcheck: "false", autocomplete: "off", value: "model=lenet dataset=digits", "aria-describedby": "line-help" });
  const shown = el("code", { id: "line-shown" });
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const parts = el("div", { class: "form" });
  const tell = () => { shown.textContent = `epochal train ${line.value}`; };
  const put = (key, value) => {
    const rest = line.value.split(/\s+/).filter((part) => part && !part.startsWith(`${key}=`));
    line.value = [...rest, ...(value === "" ? [] : [`${key}=${value}`])].join(" ");
    tell();
  };
  const fields = { seed: "1", duration: "5epochs" };
  get("api/choices").then((choices) => {
    for (const [group, options] of Object.entries(choices)) {
      const select = el("select", { "aria-label": group }, el("option", { value: "", text: t("default", "기본값") }), options.map((option) => el("option", { value: option, text: option })));
      select.addEventListener("change", () => put(group, select.value));
      parts.append(el("label", { class: "field" }, group, select));
    }
    for (const [key, example] of Object.entries(fields)) {
      const input = el("input", { type: "text", placeholder: example, "aria-label": key });
      input.addEventListener("change", () => put(key, input.value.trim()));
      parts.append(el("label", { class: "field" }, key, input));
    }
    const budget = el("select", { "aria-label": "budget" }, ["", "smoke", "cpu", "paper"].map((size) => el("option", { value: size, text: size || t("default", "기본값") })));
    budget.addEventListener("change", () => put("budget", budget.value));
    parts.append(el("label", { class: "field" }, t("budget of an experiment", "실험의 예산 (budget)"), budget));
  }).catch((error) => problem(note, error));
  line.addEventListener("input", tell);
  tell();
  const start = async (event) => {
    event.preventDefault();
    try {
      started = (await post("api/start", { line: line.value })).number;
      wanted = null;
      choose({ started, run: null });
      problem(note, null);
      await refresh(view);
    } catch (error) {
      problem(note, error);
    }
  };
  const copy = async () => {
    await navigator.clipboard.writeText(shown.textContent);
  };
  const quick = STARTERS.map((one) => el("button", { type: "button", text: one.text(), onclick: () => { line.value = one.line; tell(); line.focus(); } }));
  return el("form", { class: "card", onsubmit: start, "aria-label": t("Start a training", "학습 시작") },
    el("h2", { text: t("Start a training", "학습 시작") }),
    el("div", { class: "row" }, quick),
    el("details", {}, el("summary", { text: t("Choose the parts", "구성 요소 고르기") }), parts),
    el("label", { class: "field" }, t("Everything that follows epochal train", "epochal train 뒤에 올 모든 것"), line),
    el("p", { class: "soft", id: "line-help", text: t("Any key of a config may stand here: model.depth=20 optimizer.lr=0.01 duration=5epochs. The same is typed in a terminal:", "설정의 어떤 키든 쓸 수 있습니다: model.depth=20 optimizer.lr=0.01 duration=5epochs. 터미널에서는 이렇게 입력합니다:") }),
    el("p", { class: "row" }, shown, el("button", { type: "button", onclick: copy, text: t("Copy", "복사") })),
    el("button", { type: "submit", class: "main", disabled: !mayAct, text: t("Start", "시작") }),
    note);
}

async function refresh(view) {
  const runs = await allRuns();
  if (started !== null) await tellStarted(view, runs);
  drawTable(view, runs);
  if (wanted) await drawDetail(view);
}

/** What the training that was started here prints, until its run is there. */
async function tellStarted(view, runs) {
  let state;
  try {
    state = await get(`api/started/${started}`);
  } catch { // of a server that was started anew since
    started = null;
    choose({ started: null });
    return;
  }
  const failed = state.status !== null && state.status !== 0;
  if (state.runs.length && !wanted) {
    wanted = runs.some((run) => run.id === state.runs[0]) ? state.runs[0] : null;
    choose({ run: wanted });
  }
  const title = failed ? t("It did not start, or ended early", "시작하지 못했거나 일찍 끝났습니다")
    : state.status === 0 ? t("Finished", "끝났습니다") : state.runs.length ? t("Running", "진행 중") : t("Starting …", "시작하는 중 …");
  const output = view.told.querySelector("pre");
  if (output && view.told.dataset.number === String(started)) { // keep the scroll position and what is folded
    if (output.textContent !== state.said) output.textContent = state.said;
    view.told.querySelector("h3").textContent = title;
    if (failed) view.told.querySelector("details").open = true;
    return;
  }
  view.told.dataset.number = String(started);
  view.told.replaceChildren(el("div", { class: "card" },
    el("h3", { text: title }), el("p", {}, el("code", { text: state.line })),
    el("details", { open: failed }, el("summary", { text: t("What it prints", "출력") }), el("pre", { text: state.said }))));
}

function drawTable(view, runs) {
  if (!runs.length) {
    view.table.replaceChildren(el("p", { text: t("There are no runs here yet. Start the first one above: LeNet learns to read digits in 15 seconds.", "아직 실행이 없습니다. 위에서 첫 실행을 시작하세요. LeNet은 15초 만에 숫자 읽기를 배웁니다.") }));
    return;
  }
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  const heads = [t("Run", "실행"), t("Result", "결과"), t("State", "상태"), t("Try it", "써 보기")];
  const body = el("tbody", {}, runs.slice(0, 200).map((run) => tableRow(view, run)));
  view.table.replaceChildren(
    el("div", { class: "scroll" }, el("table", { class: "stack" }, el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col", text })))), body)),
    runs.length > 200 ? el("p", { class: "soft", text: t(`The newest 200 of ${runs.length.toLocaleString()} runs; the comparison has them all.`, `${runs.length}개 실행 중 최근 200개입니다. 비교 페이지에 모두 있습니다.`) }) : "");
  if (focused) view.table.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function tableRow(view, run) {
  const open = el("button", { type: "button", "data-key": `open ${run.id}`, text: `${run.model} · ${run.dataset}`, "aria-pressed": String(run.id === wanted), onclick: async () => {
    wanted = run.id;
    choose({ run: run.id });
    drawTable(view, await allRuns());
    await drawDetail(view);
    view.detail.scrollIntoView({ block: "nearest" }); // it stands above the list
  } });
  const rooms = run.rooms.map((room) => el("a", { href: `#${room}?run=${run.id}`, "data-key": `${room} ${run.id}`, text: ROOM_NAMES[room]() }));
  return el("tr", {},
    el("td", {}, open, el("div", { class: "soft", text: `${run.task.replaceAll("_", " ")} · ${run.name}` })),
    el("td", { text: run.result || "" }),
    el("td", {}, badge(run.status), run.status === "running" ? el("span", { class: "soft", text: ` ${Math.round(100 * run.progress)} %` }) : ""),
    el("td", {}, el("span", { class: "row" }, rooms)));
}

function badge(status) {
  const [kind, text] = STATUS[status] || ["open", () => status];
  const why = status === "silent" ? t("Its process tells nothing any more: it was killed, or the machine was started anew.", "프로세스가 더 이상 응답하지 않습니다. 강제 종료되었거나 컴퓨터가 다시 시작되었습니다.") : null;
  return el("span", { class: `badge ${kind}`, text: text(), title: why });
}

/** A run's curves, and what can be done with it. */
async function drawDetail(view) {
  let run;
  try {
    run = await get(`api/runs/${wanted}`);
  } catch (error) {
    wanted = null;
    choose({ run: null });
    view.detail.replaceChildren();
    throw error;
  }
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const act = (path, then) => async () => {
    try {
      const found = await post(path);
      if (then) then(found);
      await refresh(view);
    } catch (error) {
      problem(note, error);
    }
  };
  const going = run.status === "running";
  const buttons = [
    going ? el("button", { type: "button", disabled: !mayAct, "data-key": "stop", text: t("Stop", "중지"), onclick: act(`api/runs/${run.id}/stop`) }) : null,
    ["stopped", "failed", "silent"].includes(run.status)
      ? el("button", { type: "button", disabled: !mayAct, "data-key": "resume", text: t("Resume", "이어서 학습"), onclick: act(`api/runs/${run.id}/resume`, (found) => { started = found.number; choose({ started }); }) }) : null,
  ];
  const focused = view.detail.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  fill(view.detail, el("section", { class: "card", "aria-label": run.name },
    el("div", { class: "row" }, el("h2", { text: `${run.model} · ${run.dataset}` }), badge(run.status), run.result ? el("strong", { text: run.result }) : null),
    el("p", { class: "soft" }, el("code", { text: `epochal train ${run.typed}` })),
    run.error ? el("p", { class: "problem", text: run.error }) : null,
    going ? el("progress", { value: run.progress, max: 1, "aria-label": t("Progress", "진행") }) : null,
    el("div", { class: "columns" }, plots(run)),
    picturesOf(run, view),
    el("div", { class: "row" }, buttons, run.rooms.map((room) => el("a", { href: `#${room}?run=${run.id}`, text: ROOM_NAMES[room]() }))),
    note));
  if (focused) view.detail.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** The run's newest pictures; the same elements as before where nothing is new, so that nothing flickers. */
function picturesOf(run, view) {
  const known = JSON.stringify([run.id, run.pictures]);
  if (view.pictures?.known !== known) {
    const shown = run.pictures.map(({ name, step }) => {
      const said = name.replaceAll("_", " "), label = step === null ? said : `${said} · ${t("step", "스텝")} ${step.toLocaleString()}`;
      const address = `api/runs/${run.id}/picture?${new URLSearchParams({ name, step: step ?? "" })}`;
      return el("figure", {}, el("a", { href: address, target: "_blank" }, el("img", { src: address, alt: label, loading: "lazy" })), el("figcaption", { class: "soft", text: label }));
    });
    view.pictures = { known, element: shown.length ? el("div", { class: "gallery" }, shown) : null };
  }
  return view.pictures.element;
}

/** One small plot for each metric that training or validation has: loss first. */
function plots(run) {
  const series = {};
  for (const block of run.curves) {
    const x = block.step || block.epoch;
    for (const [name, values] of Object.entries(block)) {
      const [split, metric] = name.split("/");
      if (!metric || !["train", "val"].includes(split) || !x || values.length < 1) continue;
      (series[metric] ||= {})[split] = values.map((value, i) => [x[i], value]).filter(([, value]) => value !== null);
    }
  }
  const last = (name) => series[name]?.val?.at(-1)?.[1];
  if (last("bits_per_byte") === last("bits_per_character")) delete series.bits_per_character; // a character is a byte
  const ranked = ["loss", "accuracy", "error", "perplexity", "bits_per_byte", "fid"];
  const names = Object.keys(series).filter((name) => ranked.includes(name) || series[name].val).sort((a, b) => (ranked.indexOf(a) + 1 || 99) - (ranked.indexOf(b) + 1 || 99));
  return names.slice(0, 4).map((name) => plot(name.replaceAll("_", " "), series[name]));
}

const WIDTH = 360, HEIGHT = 190, LEFT = 46, BOTTOM = 22, TOP = 8, RIGHT = 10;

function plot(name, splits) {
  const points = Object.values(splits).flat();
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)], [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const px = (x) => LEFT + (WIDTH - LEFT - RIGHT) * (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5);
  const py = (y) => TOP + (HEIGHT - TOP - BOTTOM) * (y1 > y0 ? (y1 - y) / (y1 - y0) : 0.5);
  const drawn = Object.entries(splits).map(([split, values]) => {
    const stroke = split === "val" ? colour("--open") : colour("--accent");
    const last = values[values.length - 1];
    return el("g", {}, el("polyline", { points: values.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" "), fill: "none", stroke, "stroke-width": "1.8", "stroke-dasharray": split === "val" ? "5 3" : null }),
      last ? el("circle", { cx: px(last[0]), cy: py(last[1]), r: 3, fill: stroke }) : null);
  });
  const axis = { stroke: colour("--line") }, ink = { fill: colour("--soft"), "font-size": 11 };
  const number = (value) => (["accuracy", "error"].includes(name) && value !== undefined ? `${(100 * value).toFixed(1)} %` : short(value));
  const keys = Object.entries(splits).map(([split, values]) => [split, `${split === "val" ? t("validation", "검증") : t("training", "학습")} ${number(values.at(-1)?.[1])}`]);
  const told = keys.map(([, text]) => text).join(", ");
  return el("figure", { class: "plot" },
    el("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name}: ${told}` },
      el("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, ...axis }), el("line", { x1: LEFT, x2: LEFT, y1: TOP, y2: HEIGHT - BOTTOM, ...axis }),
      el("text", { x: LEFT - 4, y: TOP + 9, "text-anchor": "end", ...ink, text: number(y1) }), el("text", { x: LEFT - 4, y: HEIGHT - BOTTOM, "text-anchor": "end", ...ink, text: number(y0) }),
      el("text", { x: LEFT, y: HEIGHT - 6, ...ink, text: short(x0) }), el("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end", ...ink, text: `${x1.toLocaleString(korean ? "ko" : "en")} ${t("steps", "스텝")}` }),
      drawn),
    el("figcaption", { class: "row soft" }, el("strong", { text: name }), keys.map(([split, text]) => el("span", { class: `split ${split}`, text }))));
}

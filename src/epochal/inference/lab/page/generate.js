// The room of generators: sliders through latent space, a walk between two samples, the samples by step as a film.

import { choose, el, fill, get, mayAct, offer, post, problem, runPicker, t } from "./base.js";

let playing = null;
let shownRun = 0;

export const room = {
  name: "generate",
  title: t("Generate", "생성하기"),
  async show(main, query) {
    const space = el("div");
    const picker = await runPicker("generate", query.get("run"), (run) => (run ? open(space, run, query) : null));
    main.append(picker, space);
    if (picker.hidden) main.append(offer("model=gan dataset=digits", t("No run here generates pictures yet. This one learns to draw digits:", "아직 그림을 생성하는 실행이 없습니다. 숫자 그리기를 배우는 실행입니다:")));
  },
  hide() {
    clearInterval(playing);
    shownRun += 1;
  },
};

async function open(space, run, query) {
  clearInterval(playing);
  const mine = ++shownRun;
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const state = { seed: Number(query.get("seed")) || 1, to: Number(query.get("to")) || 2, label: Number(query.get("label")) || 0, sliders: [] };
  const picture = el("img", { class: "sample", alt: t("Generated picture", "생성된 그림") });
  const score = el("p", { class: "soft" });
  const sliders = el("div", { class: "form" });
  const walk = el("div", { class: "walk" });
  const labels = el("select", { "aria-label": t("Class", "클래스") });
  const labelField = el("label", { class: "field", hidden: true }, t("class", "클래스"), labels);
  let going = false, wanted = false;
  const draw = async () => {
    if (!mayAct) return;
    if (going) { wanted = true; return; }
    going = true;
    try {
      const found = await post(`api/generate/${run.id}/sample`, { seed: state.seed, label: state.label, sliders: state.sliders });
      if (mine !== shownRun) return;
      picture.src = found.image;
      score.textContent = t(`The discriminator takes it for real with ${Math.round(100 * found.score)} %.`, `판별자는 ${Math.round(100 * found.score)} % 확률로 진짜라고 봅니다.`);
      if (!sliders.childElementCount) make(found);
      problem(note, null);
    } catch (error) {
      problem(note, error);
    }
    going = false;
    if (wanted) { wanted = false; draw(); }
  };
  const make = (found) => {
    state.sliders = Array(found.sliders).fill(0);
    sliders.replaceChildren(...state.sliders.map((_, i) => {
      const input = el("input", { type: "range", min: -6, max: 6, step: 0.1, value: 0 });
      input.addEventListener("input", () => { state.sliders[i] = Number(input.value); draw(); });
      return el("label", { class: "field" }, `${t("direction", "방향")} ${i + 1}`, input);
    }));
    if (found.classes.length) {
      labelField.hidden = false;
      labels.replaceChildren(...found.classes.map((name, i) => el("option", { value: i, text: name, selected: i === state.label })));
    }
  };
  const between = async () => {
    if (!mayAct) return;
    try {
      const found = await post(`api/generate/${run.id}/walk`, { seed: state.seed, to: state.to, label: state.label });
      if (mine !== shownRun) return;
      walk.replaceChildren(...found.images.map((image, i) => el("img", { src: image, alt: t(`Step ${i + 1} of ${found.images.length}`, `${found.images.length}단계 중 ${i + 1}`) })));
      problem(note, null);
    } catch (error) {
      problem(note, error);
    }
  };
  const seedField = (key, label) => {
    const input = el("input", { type: "number", min: 0, step: 1, value: state[key] });
    input.addEventListener("change", () => { state[key] = Math.max(0, Math.floor(Number(input.value)) || 0); choose({ [key]: state[key] }); reset(); between(); });
    return { input, field: el("label", { class: "field" }, label, input) };
  };
  const reset = () => { sliders.replaceChildren(); state.sliders = []; draw(); };
  const seed = seedField("seed", t("sample", "표본")), to = seedField("to", t("on the way to sample", "도착 표본"));
  labels.addEventListener("change", () => { state.label = Number(labels.value); choose({ label: state.label }); draw(); between(); });
  const another = el("button", { type: "button", class: "main", disabled: !mayAct, text: t("Another one", "다른 표본"), onclick: () => { state.seed = Math.floor(Math.random() * 1e6); seed.input.value = state.seed; choose({ seed: state.seed }); reset(); between(); } });
  fill(space, note, el("div", { class: "columns" },
    el("section", { class: "card", "aria-label": t("A sample", "표본") }, el("h2", { text: t("Through latent space", "잠재 공간 속으로") }),
      el("div", { class: "row" }, another, seed.field, labelField), picture, score,
      el("p", { class: "soft", text: t("Each slider turns the noise in one direction; the first changes the picture most.", "각 슬라이더는 잡음을 한 방향으로 움직입니다. 첫 번째가 그림을 가장 많이 바꿉니다.") }), sliders,
      el("button", { type: "button", text: t("Back to the sample", "처음으로"), onclick: reset })),
    el("section", { class: "card", "aria-label": t("A walk", "보간") }, el("h2", { text: t("From one sample to another", "한 표본에서 다른 표본으로") }), to.field, walk),
    await film(run)));
  await draw();
  await between();
}

/** The samples by step, to be played. */
async function film(run) {
  const { steps } = await get(`api/generate/${run.id}/film`);
  if (!steps.length) return null;
  const picture = el("img", { class: "film", alt: "" });
  const told = el("output");
  const slider = el("input", { type: "range", min: 0, max: steps.length - 1, step: 1, value: steps.length - 1, "aria-label": t("Step", "스텝") });
  const show = () => {
    picture.src = `api/generate/${run.id}/film/${slider.value}`;
    picture.alt = told.textContent = `${t("samples at step", "스텝별 표본")} ${steps[Number(slider.value)].toLocaleString()}`;
  };
  slider.addEventListener("input", show);
  const play = el("button", { type: "button", text: t("Play", "재생"), "aria-pressed": "false", onclick: () => {
    if (playing) { clearInterval(playing); playing = null; play.setAttribute("aria-pressed", "false"); return; }
    play.setAttribute("aria-pressed", "true");
    slider.value = 0;
    show();
    playing = setInterval(() => { slider.value = (Number(slider.value) + 1) % steps.length; show(); }, 500);
  } });
  show();
  return el("section", { class: "card", "aria-label": t("Film", "필름") }, el("h2", { text: t("How it learned", "배워 온 과정") }), el("div", { class: "row" }, play, told), slider, picture);
}

// The room of conversations.

import { choose, el, lines, mayAct, offer, problem, runPicker, t } from "./base.js";

let stopping = null;

export const room = {
  name: "chat",
  title: t("Chat", "대화"),
  async show(main, query) {
    const space = el("div");
    const picker = await runPicker("chat", query.get("run"), (run) => (run ? open(space, run) : null));
    main.append(picker, space);
    if (picker.hidden) {
      main.append(el("p", { class: "soft", text: t("A network answers once it was tuned on conversations; that takes two trainings (more in docs/post-training.md).", "대화로 미세 조정한 신경망이 답합니다. 학습이 두 번 필요합니다 (docs/post-training.md).") }),
        offer("model=gpt dataset=sst2_half task=language_modeling duration=300steps", t("First a language model: this one learns to write film reviews.", "먼저 언어 모델: 영화평 쓰기를 배우는 실행입니다.")),
        el("div", { class: "card" }, el("p", { text: t("Then tune it on conversations of yours, in the room of runs (docs/post-training.md says how they are written):", "그다음 내 대화로 미세 조정합니다. '실행'에서 시작하세요 (대화 형식은 docs/post-training.md):") }),
          el("p", {}, el("code", { text: "epochal train model=gpt dataset=conversations dataset.path=chats.jsonl init_from=outputs/runs/<run>" }))));
    }
  },
  hide() {
    stopping?.abort();
  },
};

function open(space, run) {
  stopping?.abort();
  const messages = [];
  const log = el("div", { class: "talk", role: "log", "aria-label": t("Conversation", "대화") });
  const box = el("textarea", { rows: 2, "aria-label": t("Your message", "메시지"), placeholder: t("Your message; Enter sends it", "메시지를 쓰고 Enter를 누르세요") });
  const system = el("input", { type: "text", "aria-label": t("Message of the system", "시스템 메시지") });
  const temperature = el("input", { type: "range", min: 0, max: 2, step: 0.05, value: 0.7, "aria-label": t("temperature", "온도") });
  const shown = el("output", { text: "0.70" });
  temperature.addEventListener("input", () => { shown.textContent = Number(temperature.value).toFixed(2); });
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const say = (role, text) => {
    const made = el("div", { class: `said-by ${role}` }, el("span", { class: "soft", text: role === "user" ? t("You", "나") : run.model }), el("div", { class: "words", text }));
    log.append(made);
    made.scrollIntoView({ block: "nearest" });
    return made.lastChild;
  };
  const answer = async () => {
    const words = say("assistant", "");
    stopping?.abort();
    stopping = new AbortController();
    stop.hidden = false;
    const given = [...(system.value ? [{ role: "system", content: system.value }] : []), ...messages];
    let text = "";
    try {
      for await (const piece of lines(`api/chat/${run.id}`, { messages: given, length: 200, temperature: Number(temperature.value) }, stopping.signal)) {
        text += piece.text;
        words.textContent = text;
        words.scrollIntoView({ block: "nearest" });
      }
      problem(note, null);
    } catch (error) {
      problem(note, error);
    }
    stop.hidden = true;
    if (text) messages.push({ role: "assistant", content: text });
    else words.parentElement.remove();
    again.disabled = !messages.length;
  };
  const send = async (event) => {
    event?.preventDefault();
    const text = box.value.trim();
    if (!text || !mayAct) return;
    box.value = "";
    messages.push({ role: "user", content: text });
    say("user", text);
    await answer();
  };
  const again = el("button", { type: "button", disabled: true, text: t("Another answer", "다시 답하기"), onclick: async () => {
    if (messages.at(-1)?.role === "assistant") { messages.pop(); log.lastChild?.remove(); }
    await answer();
  } });
  const clear = el("button", { type: "button", text: t("New conversation", "새 대화"), onclick: () => { messages.length = 0; log.replaceChildren(); again.disabled = true; } });
  const stop = el("button", { type: "button", hidden: true, text: t("Stop", "멈춤"), onclick: () => stopping?.abort() });
  box.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event); });
  space.replaceChildren(el("section", { class: "card" }, log,
    el("form", { onsubmit: send }, box, el("div", { class: "row" }, el("button", { type: "submit", class: "main", disabled: !mayAct, text: t("Send", "보내기") }), stop, again, clear)), note,
    el("details", {}, el("summary", { text: t("Settings", "설정") }), el("div", { class: "form" },
      el("label", { class: "field" }, t("message of the system", "시스템 메시지"), system),
      el("label", { class: "field" }, el("span", {}, `${t("temperature", "온도")}: `, shown), temperature)))));
  box.focus();
}

// The frame around the rooms: navigation, and which room the address names.

import { el, keepPlace, korean, mayAct, place, problem, roomAddress, t } from "./base.js";
import { room as runs } from "./training.js";
import { room as playground } from "./playground.js";
import { room as see } from "./see.js";
import { room as write } from "./write.js";
import { room as generate } from "./generate.js";
import { room as chat } from "./chat.js";

const ROOMS = [runs, playground, see, write, generate, chat];
const main = document.getElementById("room");
let open = null;

async function show() {
  const { room, query } = place();
  keepPlace();
  const found = ROOMS.find((one) => one.name === room) || ROOMS[0];
  if (open && open.hide) open.hide();
  open = found;
  document.title = `${found.title} · Epochal`;
  for (const link of document.querySelectorAll("#rooms a")) {
    if (link.dataset.room === found.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const section = el("section", { "aria-label": found.title });
  main.replaceChildren(section);
  try {
    await found.show(section, query);
  } catch (error) {
    const note = el("p", { class: "card problem", role: "alert" });
    section.append(note);
    problem(note, error);
  }
}

document.documentElement.lang = korean ? "ko" : "en";
document.getElementById("lab-word").textContent = t("lab", "연구실");
document.getElementById("skip").textContent = t("To the content", "본문으로");
document.getElementById("rooms").setAttribute("aria-label", t("Rooms", "방"));
document.getElementById("rooms").append(...ROOMS.map((room) => el("a", { href: `#${room.name}`, "data-room": room.name, text: room.title,
  onclick: (event) => { event.currentTarget.href = roomAddress(room.name); } })));
if (!mayAct) {
  const note = document.getElementById("keyless");
  note.hidden = false;
  note.textContent = t(
    "You are looking only: open the address that the terminal shows to start runs and to try networks.",
    "보기 전용입니다. 실행을 시작하거나 신경망을 사용하려면 터미널에 표시된 주소를 여세요.");
}
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
window.addEventListener("hashchange", show);
show();

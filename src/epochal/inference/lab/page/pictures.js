// Pictures of the rooms: a pad to draw on, files, a run's test pictures, and bytes painted on canvases.

import { el, mayAct, post, problem, t } from "./base.js";

const LARGEST = 10_000_000; // bytes of a file, as the server's bound
const SHELF = 30; // test pictures that are shown at once
const HEAT = [[0, 0, 0], [88, 20, 110], [190, 50, 85], [245, 140, 20], [255, 250, 160]];
const SIGNED = [[8, 56, 112], [49, 130, 189], [158, 202, 225], [255, 255, 255], [253, 212, 158], [239, 101, 72], [153, 0, 13]];

/**
 * A canvas to draw on. `changed(full)` is called while the pen moves, and with true when it is lifted or the pad is cleared.
 *
 * width, height and pen are in pixels of the canvas; `sent` is the width in pixels of what `read` gives, a picture of a request.
 */
export function pad({ width, height, pen, sent, bright, changed }) {
  const canvas = el("canvas", { class: bright ? "pad bright" : "pad", width, height, role: "img",
    "aria-label": t("Draw here with the mouse or a finger; without them, choose a test picture or a file", "마우스나 손가락으로 그리는 곳; 대신 시험 그림이나 파일을 고를 수 있습니다") });
  const hint = el("span", { class: "hint", "aria-hidden": "true", text: t("draw here", "여기에 그리세요") });
  const ink = canvas.getContext("2d", { willReadFrequently: true });
  const high = Math.round((sent * height) / width);
  const small = el("canvas", { width: sent, height: high }).getContext("2d", { willReadFrequently: true });
  const wipe = () => {
    ink.fillStyle = "#000";
    ink.fillRect(0, 0, width, height);
    hint.hidden = false;
  };
  const read = () => {
    small.drawImage(canvas, 0, 0, sent, high);
    const { data } = small.getImageData(0, 0, sent, high);
    let text = "";
    for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(data[i]);
    return { drawn: btoa(text), width: sent };
  };
  let last = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  };
  const to = (point) => {
    Object.assign(ink, { strokeStyle: "#fff", lineWidth: pen, lineCap: "round", lineJoin: "round" });
    ink.beginPath();
    ink.moveTo(...last);
    ink.lineTo(...point);
    ink.stroke();
    last = point;
    changed(false);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    if (!hint.hidden) wipe();
    hint.hidden = true;
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    to([last[0] + 0.1, last[1]]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last) for (const one of event.getCoalescedEvents?.() || [event]) to(place(one));
  });
  const end = () => { if (last) { last = null; changed(true); } };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  wipe();
  const element = el("div", { class: "padbox" }, canvas, hint);
  element.style.width = `${width}px`;
  canvas.style.aspectRatio = `${width} / ${height}`;
  return { element, read, wipe, clear: () => { wipe(); changed(true); } };
}

/** A card with a pad, or none, and a place for files; `opened(pixels)` gets what the server at `path` reads of a file. */
export function picturePlace(drawn, title, path, note, opened) {
  const read = async (file) => {
    try {
      if (file.size > LARGEST) throw new Error(t("That is more than 10 MB, the most that is read.", "10 MB가 넘는 파일은 읽지 않습니다."));
      const { pixels } = await post(path, file);
      drawn?.wipe();
      opened(pixels);
    } catch (error) {
      problem(note, error);
    }
  };
  const input = el("input", { type: "file", accept: "image/*", class: "file", disabled: !mayAct });
  input.addEventListener("change", () => { if (input.files[0]) read(input.files[0]); input.value = ""; });
  const card = el("section", { class: "card", "aria-label": title }, el("h2", { text: title }),
    drawn?.element, drawn ? el("div", { class: "row" }, el("button", { type: "button", text: t("Clear", "지우기"), onclick: drawn.clear })) : null,
    el("label", { class: "field" }, drawn ? t("or a file: choose it, or drop it here", "또는 파일: 고르거나 여기에 놓으세요") : t("A file: choose it, or drop it here", "파일: 고르거나 여기에 놓으세요"), input));
  card.addEventListener("dragover", (event) => { event.preventDefault(); card.classList.add("over"); });
  card.addEventListener("dragleave", () => card.classList.remove("over"));
  card.addEventListener("drop", (event) => {
    event.preventDefault();
    card.classList.remove("over");
    if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
  });
  return card;
}

/**
 * A card with a run's test pictures, and `press(number)`, which marks the one that is shown; undefined for none of them.
 *
 * `name(found, n)` names picture n of an answer of the server at `path`; `chosen(number, first)` is called on a click, and with
 * true for the picture `start` as soon as it is there.
 */
export function shelf(path, start, name, chosen) {
  const row = el("div", { class: "shelf" });
  const told = el("p", { class: "soft", hidden: true });
  let shown = 0, pressed;
  const press = (number = pressed) => {
    pressed = number;
    for (const button of row.children) button.setAttribute("aria-pressed", String(button.dataset.number === String(pressed)));
  };
  const turn = async (to) => {
    try {
      const found = await post(path, { start: to });
      shown = to;
      earlier.disabled = shown === 0;
      later.disabled = shown + found.numbers.length >= found.count;
      const pixels = bytes(found.pixels);
      row.replaceChildren(...found.numbers.map((number, n) => {
        const canvas = el("canvas", { class: "pixels" }), label = name(found, n);
        const [, height, width] = found.shape;
        canvas.style.height = width > 2 * height ? "28px" : "36px"; // two wide ones stand side by side on a phone
        paintPicture(canvas, pixels, found.shape, n);
        return el("button", { type: "button", class: "plain", "data-number": number, "aria-label": `${t("Test picture", "시험 그림")} ${number}${label ? `: ${label}` : ""}`,
          title: label, onclick: () => chosen(number, false) }, canvas);
      }));
      press();
    } catch (error) { // the data are no longer there: one can still draw
      told.textContent = error.message;
      told.hidden = false;
    }
  };
  const earlier = el("button", { type: "button", disabled: true, text: t("Earlier", "이전"), onclick: () => turn(Math.max(0, shown - SHELF)) });
  const later = el("button", { type: "button", disabled: true, text: t("Later", "다음"), onclick: () => turn(shown + SHELF) });
  turn(Math.floor(start / SHELF) * SHELF).then(() => { if (row.childElementCount) chosen(start, true); });
  const card = el("section", { class: "card", "aria-label": t("Test pictures", "시험 그림") },
    el("div", { class: "row" }, el("h2", { text: t("Or choose a test picture", "또는 시험 그림 고르기") }), earlier, later), told, row);
  return { card, press: (number) => press(number ?? null) };
}

export const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

/** 256 colours between stops. */
function ramp(stops) {
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1), from = Math.min(Math.floor(at), stops.length - 2);
    return stops[from].map((value, c) => Math.round(value + (at - from) * (stops[from + 1][c] - value)));
  });
}
const HEATS = ramp(HEAT), SIGNS = ramp(SIGNED);

/** Map number n of bytes: 0 to 255, or with sign where 127.5 is zero. */
export function paintMap(canvas, values, n, [height, width], signed) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), colours = signed ? SIGNS : HEATS, size = height * width;
  for (let i = 0; i < size; i++) {
    const [red, green, blue] = colours[values[n * size + i]];
    image.data[4 * i] = red;
    image.data[4 * i + 1] = green;
    image.data[4 * i + 2] = blue;
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Picture number n of bytes (N, C, H, W), grey or in colour. */
export function paintPicture(canvas, values, [channels, height, width], n) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = values[(n * channels + (channels === 3 ? c : 0)) * size + i];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

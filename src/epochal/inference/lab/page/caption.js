// A captioner in the room of text: a picture is drawn or chosen, and each word of its caption shows where it comes from.

import { choose, el, fill, mayAct, post, problem, t } from "./base.js";
import { bytes, pad, paintMap, paintPicture, picturePlace, shelf } from "./pictures.js";

const SIDE = 560; // pixels of the longer side of the pad and of the picture

/** Fills `space`; `current()` is false once another network is shown. */
export function captioner(space, run, about, start, current) {
  const [channels, height, width] = about.shape, unit = SIDE / Math.max(height, width);
  const note = el("p", { class: "problem", role: "status", hidden: true });
  const result = el("div", { "aria-live": "polite" }, el("p", { class: "soft", text: mayAct ? t("Draw, or choose a picture.", "그림을 그리거나 고르세요.") : t("Open the address that the terminal shows to try it.", "사용하려면 터미널에 표시된 주소를 여세요.") }));
  let going = false, next = null, picture = null;
  const ask = async (read) => {
    if (!mayAct) return;
    picture = read;
    result.classList.add("stale"); // what stands there is of the picture before
    if (going) { next = read; return; }
    going = true;
    try {
      const asked = read(), found = await post(`api/write/${run.id}/caption`, { picture: asked });
      if (!current()) return;
      choose({ picture: asked.test ?? null });
      problem(note, null);
      if (!next) result.classList.remove("stale");
      drawCaption(result, found, about.shape, unit);
      press(asked.test);
    } catch (error) {
      problem(note, error);
    } finally {
      going = false;
    }
    const waiting = next;
    next = null;
    if (waiting && current()) ask(waiting);
  };
  const drawn = channels === 1 // colours cannot be drawn
    ? pad({ width: Math.round(width * unit), height: Math.round(height * unit), pen: 0.09 * height * unit, sent: Math.min(512, 4 * width), bright: about.bright, changed: () => ask(drawn.read) })
    : null;
  const { card, press } = shelf(`api/write/${run.id}/shelf`, start, () => "", (number, first) => {
    if (first && picture) return;
    drawn?.wipe();
    ask(() => ({ test: number }));
  });
  const title = drawn ? t("Draw", "그리기") : t("A picture of your own", "내 그림");
  fill(space, el("div", { class: "columns" }, picturePlace(drawn, title, `api/write/${run.id}/file`, note, (pixels) => ask(() => ({ pixels }))),
    el("section", { class: "card", "aria-label": t("What it writes", "설명") }, el("h2", { text: t("What it writes", "설명") }), note, result)), card);
}

function drawCaption(place, found, shape, unit) {
  const [, height, width] = shape, pixels = bytes(found.seen);
  const large = el("canvas", { class: "captioned", role: "img", "aria-label": t("The picture as the network reads it", "신경망이 읽는 그림") });
  const light = (i) => paintLit(large, pixels, shape, i === null ? null : found.attention?.[i], unit);
  const tokens = found.tokens.map((token, i) => {
    const small = el("canvas", {});
    if (found.attention) paintLit(small, pixels, shape, found.attention[i], Math.min(96 / height, 200 / width));
    return el("button", { type: "button", class: "word", onmouseenter: () => light(i), onfocus: () => light(i), onclick: () => light(i), onmouseleave: () => light(null), onblur: () => light(null) },
      found.attention ? small : null, el("span", { class: "token", text: token }));
  });
  light(null);
  const right = found.truth?.includes(found.text);
  const truth = found.truth && (right ? el("p", { class: "soft", text: t("✓ right: the test set says the same", "✓ 정답: 시험 데이터의 설명과 같습니다") })
    : el("p", { class: "soft", text: `${t("The test set says: ", "시험 데이터의 설명: ")}${found.truth.slice(0, 5).join(" · ")}` }));
  fill(place, el("p", { class: "told", text: found.text || t("(nothing)", "(없음)") }), truth, large,
    el("p", { class: "soft", text: found.attention ? t("Where each word comes from; point at one to see it large:", "각 단어가 보는 곳입니다. 가리키면 크게 보입니다:") : t("This network has no attention: all it knows of the picture is one vector.", "이 신경망에는 어텐션이 없습니다. 그림에 대해 아는 것은 벡터 하나뿐입니다.") }),
    el("div", { class: "words" }, tokens));
}

/** The picture, darkened where a map of attention is low. */
function paintLit(canvas, pixels, shape, map, unit) {
  const [, height, width] = shape, plain = el("canvas");
  paintPicture(plain, pixels, shape, 0);
  canvas.width = Math.round(width * unit);
  canvas.height = Math.round(height * unit);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(plain, 0, 0, canvas.width, canvas.height);
  if (!map) return;
  const heat = el("canvas");
  paintMap(heat, bytes(map), 0, [height, width], false);
  context.globalAlpha = 0.6;
  context.imageSmoothingEnabled = true;
  context.drawImage(heat, 0, 0, canvas.width, canvas.height);
}

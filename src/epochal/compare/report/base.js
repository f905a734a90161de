"use strict";
// The data of the page, what the reader has chosen, and small helpers. The scripts share one scope, in the order that page.py
// names. All text from runs becomes a text node, never HTML.
const EVERY = 3000; // milliseconds between two requests for updates
const $ = (id) => document.getElementById(id);
const CLASSES = {
  supported: "good", "not supported": "bad", inconclusive: "open",
  finished: "good", failed: "bad", running: "going", silent: "open", stopped: "plain", pruned: "plain",
};
const SIGNS = {supported: "✓", "not supported": "✗", inconclusive: "?"};
let data = JSON.parse($("data").textContent);

// `plots` is null while they are those of the page; else {from, ...changes} each, `from` a number of data.plots or null.
const state = {
  filter: "", status: null, sort: null, ticked: new Set(), allKeys: false, name: null, step: null, plots: null,
  drawn: {}, rows: new Map(), views: [], figures: [], queue: [], cell: {row: null, column: 0},
};

/** An element with attributes and children; strings become text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const badge = (word) => element("span", {class: `badge ${CLASSES[word] || "plain"}`}, word);
/** Text with a line-break opportunity after each . _ and /, for names of runs and keys. */
const breakable = (text) => String(text).split(/(?<=[._/])/).flatMap((part, i) => i ? [element("wbr"), part] : [part]);
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** Whether the data of a part of the page differs from when it was last drawn. */
function changed(part, ...shows) {
  const now = JSON.stringify(shows);
  if (state.drawn[part] === now) return false;
  state.drawn[part] = now;
  return true;
}

const AXES = ["step", "epoch", "examples", "seconds", "training_flops"]; // of learning curves

const info = (name) => data.names[name] || {title: name, short: name};
const isPercent = (name) => info(name).form === "percent";
const largerIsBetter = (name) => info(name).best === "max";

/** A metric, cost or config value of a run, or undefined. */
function value(run, name) {
  if (name in run.values) return run.values[name];
  const found = name in run.config ? run.config[name] : data.common[name];
  return found === null ? undefined : found;
}

const isNumeric = (name, runs = data.runs) => {
  const values = runs.map((run) => value(run, name)).filter((found) => found !== undefined);
  return values.length > 0 && values.every((found) => typeof found === "number");
};

// ---- numbers as the terminal has them ----

function short(number) {
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (number >= 0.9995 * size) return `${(number / size).toPrecision(3).replace(/\.$/, "")} ${letter}`;
  return general(number, 3);
}

/** As Python's format `g` has it. */
function general(number, digits = 6) {
  if (number === 0) return "0";
  const [mantissa, exponent] = number.toExponential(digits - 1).split("e");
  if (exponent >= -4 && exponent < digits) return String(Number(number.toPrecision(digits)));
  const power = Math.abs(exponent);
  return `${Number(mantissa)}e${exponent < 0 ? "-" : "+"}${power < 10 ? "0" : ""}${power}`;
}

function duration(seconds) {
  if (seconds < 100) return `${seconds.toFixed(seconds >= 10 ? 0 : 1)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const grouped = (number, places) => number.toLocaleString("en", {minimumFractionDigits: places, maximumFractionDigits: places});

/** A value of a metric or cost. */
function numberText(form, number) {
  if (form === "percent") return `${(100 * number).toFixed(2)} %`;
  if (form === "short") return short(number);
  if (form === "duration") return duration(number);
  if (form === "whole") return grouped(number, 0);
  if (number === 0) return "0.000";
  const size = Math.floor(Math.log10(Math.abs(number)));
  return size >= -4 && size < 7 ? grouped(number, Math.max(0, 3 - size)) : general(number, 3);
}

/** A value of any name, as text. */
function valueText(name, found) {
  if (found === undefined || found === null) return "";
  if (typeof found === "boolean") return found ? "yes" : "no";
  if (typeof found === "number") {
    const {form} = info(name);
    return form ? numberText(form, found) : Number.isInteger(found) && Math.abs(found) < 1e15 ? grouped(found, 0) : general(found);
  }
  const text = String(found);
  return (text.startsWith("[") ? text.replace(/^\[|\]$|"/g, "") : text).split(/\s+/).filter(Boolean).join(" ");
}

/** `resnet, depth 20` for the values of some keys; one that is missing is told only if all are. */
function label(keys, values) {
  const twins = (key) => keys.filter((other) => info(other).short === info(key).short).length > 1;
  const none = values.every((value) => value === undefined || value === null);
  const words = keys.map((key, i) => {
    const found = values[i], head = twins(key) ? key.replace(/[._]/g, " ") : info(key).short;
    if (found === undefined || found === null) return none ? `${head} –` : "";
    if (typeof found === "boolean") return found ? head : `not ${head}`;
    return key.endsWith(".name") ? valueText(key, found) : `${head} ${valueText(key, found)}`;
  });
  return words.filter(Boolean).join(", ") || "all runs";
}

/** Sort order of values of different types: none, then numbers, then text. */
function order(a, b) {
  const kind = (found) => found === undefined ? 0 : typeof found === "string" ? 2 : 1;
  if (kind(a) !== kind(b)) return kind(a) - kind(b);
  return kind(a) === 1 ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0;
}

// ---- copying ----

let noted;
function note(text) {
  $("note").textContent = text;
  clearTimeout(noted);
  noted = setTimeout(() => { $("note").textContent = ""; }, 4000);
}

function save(blob, name) {
  const link = element("a", {href: URL.createObjectURL(blob), download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Copies text or a picture; saves it as a file where the browser forbids copying. */
async function copy(blob, name) {
  try {
    if (blob.type === "image/png") await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
    else await navigator.clipboard.writeText(await blob.text());
    note(`Copied ${name}.`);
  } catch {
    save(blob, name);
    note(`This browser allows no copying here; ${name} was saved instead.`);
  }
}

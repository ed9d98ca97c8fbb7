// Shows JSON as a tree that opens step by step, however big it is.

import { copy, h, iconButton } from "./dom.js";

/** Children that are shown at once, and characters of a text. */
const CHUNK = 100;
const TEXT = 600;

/** How deep, and how many rows of a section, are unfolded from the start. */
const DEPTH = 4;
const UNFOLDED = 40;

let unfolded = 0;

/** A number that JavaScript would round, as it was written. */
class Exact {
  constructor(text) {
    this.text = text;
  }
}

/** Parses JSON without losing the digits of large numbers, where the browser tells them. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    if (typeof value === "number" && context?.source !== undefined && String(value) !== context.source && !Number.isSafeInteger(value)) {
      return new Exact(context.source);
    }
    return value;
  });
}

/** Writes what `parse` read. */
export function stringify(value) {
  return JSON.stringify(value, (_, value) => (value instanceof Exact ? (JSON.rawJSON?.(value.text) ?? value.text) : value), 2);
}

/** A section with a heading, a tree and a button to copy all of it; `linkOf` gives links for its plain values. */
export function section(title, value, open = true, linkOf = undefined) {
  unfolded = 0;
  const body = h("div", { class: "json" });
  const entries = children(value);
  if (entries) body.append(...list(entries, 0, 0, linkOf));
  else body.append(leaf(value));
  const number = entries && entries.length > 3 ? h("small", {}, String(entries.length)) : null;
  return h(
    "details",
    { class: "section", open },
    h("summary", {}, h("span", {}, title, number), copyButton(title, value)),
    body,
  );
}

function copyButton(what, value) {
  return iconButton("copy", `Copy ${what}`, (event) => {
    event.preventDefault();
    event.stopPropagation();
    copy(typeof value === "string" ? value : stringify(value), what);
  });
}

function children(value) {
  if (value === null || typeof value !== "object" || value instanceof Exact) return null;
  return Array.isArray(value) ? value.map((item, index) => [index, item]) : Object.entries(value);
}

function* list(entries, depth, from = 0, linkOf = undefined) {
  for (const [key, value] of entries.slice(from, from + CHUNK)) yield row(key, value, depth, linkOf);
  const rest = entries.length - from - CHUNK;
  if (rest > 0) {
    const more = h("button", { type: "button", class: "more", onclick: () => more.replaceWith(...list(entries, depth, from + CHUNK, linkOf)) }, `${Math.min(rest, CHUNK)} more of ${rest}`);
    yield more;
  }
}

function row(key, value, depth, linkOf) {
  const name = h("span", { class: typeof key === "number" ? "index" : "key" }, String(key));
  const entries = children(value);
  if (!entries) {
    const href = linkOf?.(key, value instanceof Exact ? value.text : String(value));
    return h("div", { class: "row" }, name, leaf(value), href && h("a", { class: "alike", href, title: "Traces with the same value" }, "alike"));
  }
  const hint = Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`;
  if (entries.length === 0) return h("div", { class: "row" }, name, h("span", { class: "dim" }, Array.isArray(value) ? "[]" : "{}"));
  const box = h("details", { class: "node" }, h("summary", {}, name, h("span", { class: "dim" }, preview(value, hint))));
  const unfold = () => {
    if (box.open && box.childElementCount === 1) box.append(h("div", { class: "below" }, [...list(entries, depth + 1)]));
  };
  box.addEventListener("toggle", unfold);
  if (depth < DEPTH && unfolded + entries.length <= UNFOLDED) {
    unfolded += entries.length;
    box.open = true;
    unfold();
  }
  return box;
}

function preview(value, hint) {
  const keys = Array.isArray(value) ? [] : Object.keys(value);
  const text = keys.slice(0, 4).join(", ");
  return keys.length ? `${hint} ${text.slice(0, 60)}${keys.length > 4 ? ", …" : ""}` : hint;
}

function leaf(value) {
  if (value instanceof Exact) return h("span", { class: "number" }, value.text);
  if (typeof value === "string") return text(value);
  return h("span", { class: typeof value === "number" ? "number" : "word" }, String(value));
}

function text(value) {
  const shown = value.length > TEXT ? value.slice(0, TEXT) : value;
  const span = h("span", { class: "string" }, shown);
  if (shown === value) return span;
  const more = h("button", { type: "button", class: "more", onclick: () => {
    span.textContent = value;
    more.remove();
  } }, `all ${value.length} characters`);
  return h("span", {}, span, "… ", more);
}

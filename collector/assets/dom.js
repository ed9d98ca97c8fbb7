// Builds elements. Text only ever becomes text: nothing here parses markup.

/** An element with properties, listeners (`onclick`), `class`, `data-*`/`aria-*` and children. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.includes("-") && name !== "list" && name !== "role") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  fill(element, children);
  return element;
}

/** Puts children in the place of what is there. */
export function replace(element, ...children) {
  element.replaceChildren();
  fill(element, children);
  return element;
}

function fill(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) element.append(child);
  }
}

const SHAPES = {
  ok: "M3.5 8.5l3 3 6-7",
  error: "M4.5 4.5l7 7m0-7l-7 7",
  canceled: "M3.5 8h9",
  open: "M8 2.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11M8 5v3l2 1.5",
  pending: "M6 6a2 2 0 1 1 2.6 2c-.4.2-.6.5-.6 1m0 2.2v.3",
  run: "M5 3.5l7 4.5-7 4.5z",
  activity: "M8.8 2.5L4 9h3.5l-.7 4.5L12 7H8.4z",
  attempt: "M12.5 8a4.5 4.5 0 1 1-1.4-3.2M12.5 2.5v2.8H9.7",
  call: "M4 4h4v8h4m-2.5-2.5L12 12l-2.5 2.5",
  message: "M3 4h10v7H7l-2.5 2.2V11H3z",
  model: "M8 2.5l1.4 4.1L13.5 8l-4.1 1.4L8 13.5 6.6 9.4 2.5 8l4.1-1.4z",
  span: "M3 8h10M3 5v6m10-6v6",
  copy: "M6 6V3.5h6.5V10H10M3.5 6H10v6.5H3.5z",
  link: "M6.5 9.5l3-3M7 4.5l1-1a2.8 2.8 0 0 1 4 4l-1 1m-2 3l-1 1a2.8 2.8 0 0 1-4-4l1-1",
  out: "M9 3.5h3.5V7m0-3.5L7 9M7 4.5H3.5v8h8V9",
  down: "M4.5 6.5L8 10l3.5-3.5",
  right: "M6.5 4.5L10 8l-3.5 3.5",
  close: "M4.5 4.5l7 7m0-7l-7 7",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6M8 1.8v1.4m0 9.6v1.4M1.8 8h1.4m9.6 0h1.4M3.6 3.6l1 1m6.8 6.8l1 1m0-8.8l-1 1m-6.8 6.8l-1 1",
  gear: "M3 5h6m3 0h1M3 11h1m3 0h6M9 3.5v3h2v-3zM5 9.5v3h2v-3z",
  save: "M8 3v7m-3-2.8L8 10l3-2.8M3.5 12.5h9",
  load: "M8 10V3M5 5.8L8 3l3 2.8M3.5 12.5h9",
  search: "M7 3.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7m2.6 6.1l3 3",
  back: "M9.5 4L5.5 8l4 4",
  up: "M4.5 9.5L8 6l3.5 3.5",
};

const SVG = "http://www.w3.org/2000/svg";

/** One of the page's pictures, which screen readers skip. */
export function icon(name, extra = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name} ${extra}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[name] ?? SHAPES.span);
  svg.append(path);
  return svg;
}

let toastTimer;

/** Says something in passing. */
export function toast(text, wrong = false) {
  let box = document.querySelector(".toast");
  if (!box) {
    box = h("div", { class: "toast", role: "status", "aria-live": "polite" });
    document.body.append(box);
  }
  box.textContent = text;
  box.classList.toggle("wrong", wrong);
  box.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove("shown"), wrong ? 6000 : 2200);
}

/** Puts text on the clipboard, where the browser lets us. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "offscreen", value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return toast("the browser does not let the page copy", true);
  }
  toast(`${what} copied`);
}

/** A small button with an icon. */
export function iconButton(name, title, onclick, extra = "") {
  return h("button", { type: "button", class: `icon-button ${extra}`, title, "aria-label": title, onclick }, icon(name));
}

/** A button that opens a list of actions: `[label, hint, action]`. */
export function menu(label, entries, symbol) {
  const list = h("div", { class: "menu-list", role: "menu", hidden: true });
  const button = h(
    "button",
    { type: "button", class: "button", "aria-haspopup": "menu", "aria-expanded": "false", onclick: () => show(list.hidden) },
    symbol && icon(symbol),
    label,
    icon("down"),
  );
  const box = h("div", { class: "menu" }, button, list);
  const show = (on) => {
    list.hidden = !on;
    button.setAttribute("aria-expanded", String(on));
    if (on) list.querySelector("button")?.focus();
  };
  for (const [text, hint, action] of entries) {
    const run = () => {
      show(false);
      button.focus();
      action();
    };
    list.append(h("button", { type: "button", role: "menuitem", onclick: run }, text, hint && h("small", {}, hint)));
  }
  box.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const items = [...list.querySelectorAll("button")];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") {
      show(false);
      button.focus();
    } else if (step) {
      items[(at + step + items.length) % items.length].focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("click", (event) => {
    if (!box.contains(event.target)) show(false);
  });
  return box;
}

/** A dialog with a heading; gives the element, which is shown until it is closed. */
export function dialog(title, ...content) {
  const close = () => box.close();
  const box = h(
    "dialog",
    { class: "dialog", "aria-label": title, onclose: () => box.remove() },
    h("header", {}, h("h2", {}, title), iconButton("close", "Close", close)),
    ...content,
  );
  document.body.append(box);
  box.showModal();
  return box;
}

/** Whether a key press belongs to a field, not to the page. */
export function isTyping(event) {
  const target = event.target;
  return (
    event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") !== null ||
    (target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]"))
  );
}

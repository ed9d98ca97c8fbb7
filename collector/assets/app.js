// The frame around the list and the trace: header, theme, settings, keyboard help.

import * as api from "./api.js";
import { dialog, h, iconButton, isTyping, toast } from "./dom.js";
import { showList } from "./list.js";
import { showTrace } from "./trace.js";

const THEMES = ["auto", "light", "dark"];
const TEMPORAL = "durable-spans.temporal";

/** What the collector says of itself. */
const collector = { temporalUi: null, skewMs: 0 };

applyTheme();
const live = h("span", { class: "live", role: "status" }, h("i", {}), h("span", {}, "connecting"));
const slot = h("div", { class: "header-slot" });
const main = h("main", { id: "main" });
document.body.replaceChildren(
  h("a", { class: "skip", href: "#main" }, "Skip to content"),
  h(
    "header",
    { class: "top" },
    h("a", { class: "brand", href: "/", title: "All traces" }, h("img", { src: "/assets/icon.svg", alt: "", width: 18, height: 18 }), "durable-spans"),
    slot,
    live,
    iconButton("sun", "Theme: automatic, light or dark", nextTheme),
    iconButton("gear", "Settings", settings),
    h("button", { type: "button", class: "icon-button", title: "Keyboard (?)", "aria-label": "Keyboard", onclick: () => help() }, "?"),
  ),
  main,
);

const frame = {
  slot,
  collector,
  /** The run's page in Temporal's own web page, if its address is known. */
  temporalLink(span) {
    const base = localStorage.getItem(TEMPORAL) || collector.temporalUi;
    if (!base || !span.workflow_id || !/^https?:\/\//.test(base)) return null;
    const part = encodeURIComponent;
    const run = span.run_id ? `/${part(span.run_id)}/history` : "";
    return `${base.replace(/\/+$/, "")}/namespaces/${part(span.namespace ?? "default")}/workflows/${part(span.workflow_id)}${run}`;
  },
  keys: [],
};

const trace = /^\/traces\/(.+)$/.exec(location.pathname)?.[1];
const view = trace === undefined ? showList(main, frame) : showTrace(main, frame, decoded(trace));
const look = api.watch({ start: view.start, changed: view.refresh, state: show });

document.addEventListener("keydown", (event) => {
  if (event.key === "?" && !isTyping(event)) {
    event.preventDefault();
    help();
  }
});

function show(state, answer) {
  if (state === "refused" && !live.classList.contains("refused")) toast(answer.message, true);
  live.className = `live ${state === "live" ? "on" : state}`;
  live.lastChild.textContent = state;
  live.title = state === "offline" ? "The collector does not answer. The page tries again." : state === "refused" ? answer.message : "";
  if (state === "live") {
    collector.temporalUi = answer.temporal_ui;
    collector.skewMs = Number(BigInt(answer.now) / 1000000n) - Date.now();
  }
  if (state === "locked") askForKey();
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    // Not what a link of ours says, so it is taken by the letter.
    return part;
  }
}

function applyTheme() {
  const theme = localStorage.getItem("durable-spans.theme") ?? "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function nextTheme() {
  const now = localStorage.getItem("durable-spans.theme") ?? "auto";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  localStorage.setItem("durable-spans.theme", next);
  applyTheme();
  toast(`theme: ${next}`);
  view.redraw?.();
}

function settings() {
  const field = h("input", {
    type: "url", value: localStorage.getItem(TEMPORAL) ?? "", spellcheck: false,
    placeholder: collector.temporalUi ?? "http://localhost:8233",
  });
  const box = dialog(
    "Settings",
    h(
      "form",
      { method: "dialog", onsubmit: () => {
        localStorage.setItem(TEMPORAL, field.value.trim());
        view.redraw?.();
      } },
      h("label", {}, "Address of Temporal's own web page", field),
      h("p", { class: "hint" }, "Runs link to it. Kept in this browser only; empty takes what the collector says."),
      h("footer", {}, h("button", { class: "button primary" }, "Save")),
    ),
  );
  box.querySelector("input").focus();
}

function askForKey() {
  if (document.querySelector("dialog[open]")) return;
  const field = h("input", { type: "password", autocomplete: "off" });
  dialog(
    "This collector asks for its API key",
    h(
      "form",
      { method: "dialog", onsubmit: () => {
        api.setKey(field.value);
        look();
      } },
      h("label", {}, "API key", field),
      h("p", { class: "hint" }, "Kept until this tab is closed."),
      h("footer", {}, h("button", { class: "button primary" }, "Open")),
    ),
  );
  field.focus();
}

function help() {
  if (document.querySelector("dialog[open]")) return;
  const rows = frame.keys.map(([keys, what]) => h("tr", {}, h("th", {}, keys.split(" ").map((key) => h("kbd", {}, key))), h("td", {}, what)));
  dialog("Keyboard", h("table", { class: "keys" }, h("tbody", {}, rows)));
}


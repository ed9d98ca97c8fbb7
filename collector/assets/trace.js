// One trace: waterfall, flame or names, and the pane about one span.

import * as api from "./api.js";
import { copy, h, icon, isTyping, menu, replace, toast } from "./dom.js";
import { Detail } from "./detail.js";
import { Flame } from "./flame.js";
import { STATUS_WORDS, clock, cost, count, counted, duration, full, toMs } from "./format.js";
import { build, byName, criticalPath, hasFailed, isRun, spansOf, tick, visible } from "./model.js";
import { Waterfall } from "./waterfall.js";

const VIEWS = [["waterfall", "Waterfall"], ["flame", "Flame"], ["names", "Names"]];

/** A trace of more spans opens with its activities folded. */
const MANY = 3000;

export function showTrace(main, frame, traceId) {
  document.title = "Trace · durable-spans";
  frame.keys = [
    ["↑ ↓ j k", "previous, next span"], ["← →", "fold, unfold; or go up, down"], ["Enter", "details of the span"], ["Esc", "close details, then search, then back to the list"],
    ["/", "search in the trace"], ["n N", "next, previous match"], ["e w", "unfold, fold all"], ["c", "critical path on, off"], ["+ - 0", "zoom in, out, all"], ["1 2 3", "waterfall, flame, names"], ["y", "copy link"],
  ];
  const asked = new URLSearchParams(location.search);
  const state = { folded: new Set(), selected: null, matches: null, range: [0, 1], zoomed: false, critical: null, showsCritical: localStorage.getItem("durable-spans.critical") !== "off" };
  let trace = null;
  let model = null;
  let baseMs = 0;
  let view = VIEWS.some(([name]) => name === asked.get("view")) ? asked.get("view") : "waterfall";
  let sort = "self";

  const title = h("div", { class: "trace-title" });
  const notices = h("div", { class: "notices" });
  const find = h("input", { type: "search", class: "search", placeholder: "Search in this trace", spellcheck: false, "aria-label": "Search in this trace", value: asked.get("find") ?? "" });
  const found = h("span", { class: "dim found", role: "status" });
  const tabs = h("div", { class: "segments", role: "tablist" }, VIEWS.map(([name, label]) => h("button", { type: "button", role: "tab", value: name, onclick: () => setView(name) }, label)));
  const path = h("button", { type: "button", class: "button toggle", onclick: toggleCritical, title: "The spans that the trace waited for, from its end back to its start (c)" }, h("i", { class: "critical-key" }), "Critical path");
  const unfold = h("button", { type: "button", class: "button", onclick: () => foldAll(false), title: "Unfold all (e)" }, "Unfold");
  const fold = h("button", { type: "button", class: "button", onclick: () => foldAll(true), title: "Fold all (w)" }, "Fold");
  const zoomOut = h("button", { type: "button", class: "button", hidden: true, onclick: () => zoom(null) }, "Zoom out");
  const save = (format) => () => api.save("/page/export", { trace: traceId, format }).catch((error) => toast(error.message, true));
  const tools = h(
    "div",
    { class: "tools" },
    tabs,
    h("div", { class: "search-box small" }, icon("search"), find, found),
    path,
    unfold,
    fold,
    zoomOut,
    h("span", { class: "grow" }),
    menu("Export", [
      ["JSON lines", "as they are stored", save("jsonl")], ["OTLP JSON", "for OpenTelemetry tools", save("otlp")], ["CSV", "for spreadsheets", save("csv")],
      ["Copy for LLM", "compact JSON of the whole trace", async () => copy(await api.getText("/page/export", { trace: traceId, format: "compact" }), "trace")],
    ], "save"),
  );
  const stage = h("div", { class: "stage" });
  const waterfall = new Waterfall({ select: (node) => select(node), fold: toggle, zoom });
  const flame = new Flame((node) => select(node));
  const detail = new Detail(traceId, frame, {
    close: () => select(null),
    permalink: (span) => `${location.origin}${location.pathname}?span=${encodeURIComponent(span.id)}`,
    show: (node, span) => detail.show(node, baseMs, span),
    knows: (id) => model.nodeOf.has(id),
    go: (id) => go(id),
  });
  const grip = h("div", { class: "grip", role: "separator", "aria-orientation": "vertical", title: "Drag to resize" });
  const split = h("div", { class: "split" }, stage, grip, detail.element);
  replace(main, title, notices, tools, split);
  main.className = "trace-page";
  resizing();
  paintTools();

  let findTimer = 0;
  find.addEventListener("input", () => {
    clearTimeout(findTimer);
    findTimer = setTimeout(search, 200);
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      nextMatch(event.shiftKey ? -1 : 1);
    }
    if (event.key === "Escape") {
      find.value = "";
      search();
      find.blur();
      event.stopPropagation();
    }
  });
  document.addEventListener("keydown", onKey);
  setInterval(grow, 500);
  return { start: () => load(true), refresh: () => load(false), redraw: () => model && redraw() };

  function nowNs() {
    return (Date.now() + frame.collector.skewMs - baseMs) * 1e6;
  }

  async function load(first) {
    let answer;
    try {
      answer = await api.get("/page/trace", trace ? { id: traceId, version: trace.version } : { id: traceId });
    } catch (error) {
      if (error.status === 401) return;
      if (!trace) replace(stage, h("div", { class: "empty" }, h("h2", {}, error.status === 404 ? "No span of this trace has arrived" : "The trace could not be read"), h("p", {}, error.status === 404 ? "It shows up here when the first one does." : error.message)));
      return;
    }
    if (answer === null) return;
    trace = answer;
    baseMs = toMs(trace.base);
    const openId = state.selected?.span.id ?? asked.get("span");
    model = build(trace, nowNs());
    if (first && model.order.length > MANY) for (const node of model.order) if (node.depth >= 2 && node.kids.length > 0) state.folded.add(node.span.id);
    if (!state.zoomed) state.range = [0, model.endNs];
    state.critical = null;
    const node = openId ? model.nodeOf.get(openId) : null;
    if (openId && !node && first) toast("the span of this link has not arrived", true);
    state.selected = node ?? null;
    if (node) {
      unfoldTo(node);
      detail.show(node, baseMs, first ? spanOf(node, openId) : detail.span?.id ? (trace.spans.find((span) => span.id === detail.span.id) ?? node.span) : node.span);
    }
    head();
    if (find.value) await search(false);
    redraw();
    if (first && node) waterfall.reveal(node);
  }

  function spanOf(node, id) {
    return spansOf(node).find((span) => span.id === id) ?? node.span;
  }

  function redraw() {
    if (state.showsCritical && !state.critical) state.critical = criticalPath(model);
    const shown = state.showsCritical ? state.critical : null;
    if (view === "waterfall") {
      if (stage.firstChild !== waterfall.element) replace(stage, waterfall.element);
      waterfall.show(model, visible(model, state.folded), { ...state, critical: shown });
    } else if (view === "flame") {
      if (stage.firstChild !== flame.element) replace(stage, flame.element);
      flame.show(model);
    } else {
      replace(stage, nameTable());
    }
    paintTools();
  }

  function paintTools() {
    for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.value === view));
    path.setAttribute("aria-pressed", String(state.showsCritical));
    for (const one of [path, unfold, fold]) one.hidden = view !== "waterfall";
    zoomOut.hidden = !state.zoomed;
  }

  function head() {
    const roots = model.roots.filter((node) => node.place === "root");
    // The run that goes on, where the first one continued as new.
    let last = roots[0];
    for (let next = last; next; next = model.roots.find((node) => node.continues === last)) last = next;
    const main = roots[0] ?? model.roots[0];
    const standing = roots.length === 0 ? "pending" : last.open || last.span.continued_as_new ? "open" : last.status;
    const sum = (key) => {
      const summed = new Set();
      const own = (node) => Math.max(...spansOf(node).map((span) => span[key] ?? 0));
      for (const node of model.order) if (own(node)) for (let at = node.parent; at && !summed.has(at); at = at.parent) summed.add(at);
      return model.order.reduce((total, node) => total + (summed.has(node) ? 0 : own(node)), 0);
    };
    const errors = trace.spans.filter(hasFailed).length;
    const open = trace.spans.filter((span) => span.end === undefined).length;
    const [tokens, money] = [sum("tokens"), sum("cost")];
    const run = model.order.find((node) => isRun(node.span))?.span;
    const link = run && frame.temporalLink(run);
    const figure = (label, value, tone = "") => h("span", { class: `figure-box ${tone}` }, h("small", {}, label), value);
    document.title = `${main.span.name} · durable-spans`;
    const back = `/${sessionStorage.getItem("durable-spans.list") ?? ""}`;
    replace(
      title,
      h("a", { class: "icon-button", href: back, title: "All traces (Esc)", "aria-label": "All traces" }, icon("back")),
      h("h1", { title: main.span.name }, main.span.name),
      h("span", { class: `pill s-${standing}` }, STATUS_WORDS[standing]),
      h("span", { class: "figures" },
        figure("started", h("span", { title: full(baseMs) }, clock(baseMs))),
        figure("took", h("span", { id: "took" }, duration(model.endNs))),
        figure("spans", count(trace.total)),
        open > 0 && figure("open", count(open), "s-open"),
        figure("errors", h("span", { title: "Spans that failed. An activity and its only attempt stand on one line, as do a call and its run." }, count(errors)), errors ? "bad" : ""),
        tokens > 0 && figure("tokens", count(tokens)),
        money > 0 && figure("cost", cost(money))),
      h("span", { class: "grow" }),
      h("button", { type: "button", class: "trace-id", title: "Copy the trace's id", onclick: () => copy(traceId, "trace id") }, h("code", {}, traceId), icon("copy")),
      link && h("a", { class: "button", href: link, target: "_blank", rel: "noopener noreferrer" }, icon("out"), "Temporal"),
    );
    const notes = [];
    const pending = model.roots.filter((node) => node.place === "pending");
    const lost = model.order.filter((node) => node.lost.length > 0);
    const cut = trace.spans.filter((span) => span.truncated).length;
    const dropped = trace.spans.reduce((total, span) => total + (span.dropped ?? 0), 0);
    const note = (text, node, tone) => notes.push(h("button", { type: "button", class: `notice ${tone}`, onclick: () => node && go(node.span.id) }, text));
    if (pending.length) note(counted(pending.length, "span waits for its parent", "spans wait for their parents"), pending[0], "warn");
    if (lost.length) note(`attempts lost with their worker in ${counted(lost.length, "activity", "activities")}`, lost[0], "bad");
    if (dropped) note(`${counted(dropped, "span", "spans")} dropped`, model.order.find((node) => node.span.dropped), "bad");
    if (cut) note(`${counted(cut, "span has", "spans have")} values that were cut`, model.order.find((node) => node.span.truncated), "");
    if (trace.total > trace.spans.length) note(`only the first ${count(trace.spans.length)} of ${count(trace.total)} spans are shown`, null, "warn");
    replace(notices, notes);
    notices.hidden = notes.length === 0;
  }

  function nameTable() {
    const columns = [["name", "Name"], ["count", "Count"], ["errors", "Errors"], ["self", "Self time"], ["total", "Total"], ["p50", "p50"], ["p95", "p95"], ["max", "Max"], ["tokens", "Tokens"], ["cost", "Cost"]];
    const entries = byName(model);
    entries.sort((a, b) => (sort === "name" ? a.name.localeCompare(b.name) : b[sort] - a[sort]));
    const most = Math.max(1, ...entries.map((entry) => entry.self));
    const cell = (key, entry) => {
      if (key === "count") return count(entry.count);
      if (key === "errors") return entry.errors ? h("span", { class: "bad" }, count(entry.errors)) : h("span", { class: "dim" }, "·");
      if (key === "tokens") return entry.tokens ? count(entry.tokens) : "";
      if (key === "cost") return cost(entry.cost);
      return duration(entry[key]);
    };
    return h("div", { class: "names-view" }, h("table", {},
      h("thead", {}, h("tr", {}, columns.map(([key, label]) => h("th", { scope: "col", class: key === "name" ? "" : "figure", "aria-sort": sort === key ? "descending" : undefined }, h("button", { type: "button", onclick: () => {
        sort = key;
        redraw();
      } }, label))))),
      h("tbody", {}, entries.map((entry) => {
        const bar = h("i", { class: "share" });
        bar.style.width = `${(100 * entry.self) / most}%`;
        return h("tr", {}, columns.map(([key]) => key === "name"
          ? h("td", { class: "name" }, h("button", { type: "button", onclick: () => {
            find.value = entry.name;
            setView("waterfall");
            search();
          } }, entry.name), bar)
          : h("td", { class: "figure" }, cell(key, entry))));
      }))));
  }

  /** Lets what is open grow. */
  function grow() {
    if (!model || document.hidden || !tick(model, nowNs())) return;
    const took = document.getElementById("took");
    if (took) took.textContent = duration(model.endNs);
    if (!state.zoomed) state.range = [0, model.endNs];
    state.critical = null;
    if (view === "waterfall") redraw();
  }

  function address() {
    const query = new URLSearchParams();
    if (state.selected) query.set("span", detail.span?.id ?? state.selected.span.id);
    if (view !== "waterfall") query.set("view", view);
    if (find.value) query.set("find", find.value);
    const text = query.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  }

  function select(node, details = true) {
    state.selected = node;
    if (!node) detail.hide();
    else if (details || !detail.element.hidden) detail.show(node, baseMs);
    grip.hidden = detail.element.hidden;
    address();
    if (view === "waterfall") {
      redraw();
      if (node) waterfall.reveal(node);
    }
  }

  function go(id) {
    const node = model.nodeOf.get(id);
    if (!node) return;
    if (view !== "waterfall") setView("waterfall");
    unfoldTo(node);
    select(node);
    const span = spanOf(node, id);
    if (span !== node.span) detail.show(node, baseMs, span);
  }

  function unfoldTo(node) {
    for (let at = node.parent; at; at = at.parent) state.folded.delete(at.span.id);
  }

  function toggle(node) {
    const { id } = node.span;
    if (!state.folded.delete(id)) state.folded.add(id);
    redraw();
  }

  function foldAll(fold) {
    state.folded.clear();
    if (fold) for (const node of model.order) if (node.kids.length > 0 && node.depth > 0) state.folded.add(node.span.id);
    redraw();
  }

  function toggleCritical() {
    state.showsCritical = !state.showsCritical;
    localStorage.setItem("durable-spans.critical", state.showsCritical ? "on" : "off");
    redraw();
  }

  function zoom(range) {
    state.zoomed = range !== null;
    state.range = range ?? [0, model.endNs];
    redraw();
  }

  function zoomBy(factor) {
    const [from, to] = state.range;
    const { selected } = state;
    const middle = selected && selected.end >= from && selected.start <= to ? (Math.max(selected.start, from) + Math.min(selected.end, to)) / 2 : (from + to) / 2;
    const half = ((to - from) * factor) / 2;
    const range = [Math.max(0, middle - half), Math.min(model.endNs, middle + half)];
    if (range[1] - range[0] >= model.endNs * 0.999) zoom(null);
    else if (range[1] - range[0] > 100) zoom(range);
  }

  function setView(name) {
    view = name;
    address();
    if (model) redraw();
  }

  async function search(draws = true) {
    const text = find.value.trim();
    if (text === "") {
      state.matches = null;
      found.textContent = "";
    } else {
      const ids = await api.get("/page/search", { trace: traceId, text }).catch(() => []);
      if (text !== find.value.trim()) return;
      state.matches = new Set(ids.map((id) => model.nodeOf.get(id)).filter(Boolean));
      found.textContent = state.matches.size === 0 ? "none" : count(state.matches.size);
      for (const node of state.matches) unfoldTo(node);
    }
    address();
    if (draws) {
      if (view !== "waterfall") setView("waterfall");
      else redraw();
      if (state.matches?.size) waterfall.reveal(visible(model, state.folded).find((node) => state.matches.has(node)));
    }
  }

  function nextMatch(step) {
    if (!state.matches?.size) return;
    const rows = visible(model, state.folded);
    const at = rows.indexOf(state.selected);
    for (let n = 1; n <= rows.length; n++) {
      const node = rows[(at + step * n + 2 * rows.length) % rows.length];
      if (state.matches.has(node)) return select(node, false);
    }
  }

  function onKey(event) {
    if (isTyping(event) || !model) return;
    const rows = visible(model, state.folded);
    const at = rows.indexOf(state.selected);
    const { selected } = state;
    const move = (to) => select(rows[Math.min(rows.length - 1, Math.max(0, to))], false);
    switch (event.key) {
      case "ArrowDown": case "j": move(at + 1); break;
      case "ArrowUp": case "k": move(at < 0 ? 0 : at - 1); break;
      case "PageDown": move(at + 20); break;
      case "PageUp": move(at - 20); break;
      case "Home": move(0); break;
      case "End": move(rows.length - 1); break;
      case "ArrowRight":
        if (selected?.kids.length && state.folded.has(selected.span.id)) toggle(selected);
        else move(at + 1);
        break;
      case "ArrowLeft":
        if (selected?.kids.length && !state.folded.has(selected.span.id)) toggle(selected);
        else if (selected?.parent) select(selected.parent, false);
        break;
      case "Enter": if (event.target.closest?.("button, a")) return; if (selected) select(selected); break;
      case "Escape":
        if (!detail.element.hidden) {
          detail.hide();
          grip.hidden = true;
        } else if (find.value) {
          find.value = "";
          search();
        } else location.assign(`/${sessionStorage.getItem("durable-spans.list") ?? ""}`);
        break;
      case "/": find.select(); break;
      case "n": nextMatch(1); break;
      case "N": nextMatch(-1); break;
      case "e": foldAll(false); break;
      case "w": foldAll(true); break;
      case "c": toggleCritical(); break;
      case "+": case "=": zoomBy(0.5); break;
      case "-": zoomBy(2); break;
      case "0": zoom(null); break;
      case "1": case "2": case "3": setView(VIEWS[Number(event.key) - 1][0]); break;
      case "y": copy(location.href, "link"); break;
      default: return;
    }
    event.preventDefault();
  }

  function resizing() {
    grip.hidden = true;
    const width = localStorage.getItem("durable-spans.detail");
    if (width) split.style.setProperty("--detail", `${Number(width)}px`);
    grip.addEventListener("pointerdown", (event) => {
      grip.setPointerCapture(event.pointerId);
      const follow = (moved) => {
        const wide = Math.min(innerWidth * 0.75, Math.max(280, innerWidth - moved.clientX));
        split.style.setProperty("--detail", `${wide}px`);
        localStorage.setItem("durable-spans.detail", String(Math.round(wide)));
      };
      grip.addEventListener("pointermove", follow);
      grip.addEventListener("pointerup", () => grip.removeEventListener("pointermove", follow), { once: true });
    });
  }
}

// The list of traces: what the address says, kept up to date while spans arrive.

import * as api from "./api.js";
import { dialog, h, icon, isTyping, menu, replace, toast } from "./dom.js";
import { STATUS_ICONS, STATUS_WORDS, ago, clock, cost, count, counted, duration, full, percent, term, toMs } from "./format.js";

const RANGES = [["", "any time"], ["15m", "last 15 min"], ["1h", "last hour"], ["6h", "last 6 hours"], ["1d", "last day"], ["7d", "last 7 days"], ["custom", "from … to …"]];
const STATUSES = [["", "all"], ["ok", "ok"], ["error", "error"], ["open", "open"], ["canceled", "canceled"]];
const PAGE = 60;
const MOST = 500;
const NAMES_EVERY_MS = 4000;
const LAST = "durable-spans.list";

const EXAMPLES = [
  ["name:checkout", "the root's name holds it"],
  ["status:error", "also ok, open, canceled, pending"],
  ["duration:>1.5s", "also < and us, ms, m, h, d"],
  ["errors:>0 spans:>100 tokens:>1000 cost:>0.5", "figures of the whole trace"],
  ["span:charge type:COMPLETION tag:beta", "of any span"],
  ["temporal.workflow_id:order-7", "any metadata key; * stands for any value; dots go into objects"],
  ["group:session-1 trace:c58c5e1e", "group id; beginning of the trace id"],
  ['zurich "card declined"', "text in names, ids, inputs, outputs, metadata"],
  ["-status:ok", "a minus turns a term around"],
];

export function showList(main, frame) {
  document.title = "Traces · durable-spans";
  const state = { asked: new URLSearchParams(location.search), traces: new Map(), next: null, generation: 0, selected: null, lookedAt: 0, namesAt: 0, namesTimer: null };
  frame.keys = [["/", "search"], ["j k ↑ ↓", "next, previous trace"], ["Enter", "open the trace"], ["r", "refresh"], ["?", "this list"]];

  const search = h("input", { type: "search", class: "search", name: "q", placeholder: "Search: words, name:order, tenant:acme, duration:>1s …", spellcheck: false, autocomplete: "off", "aria-label": "Search traces" });
  const hint = h("button", { type: "button", class: "icon-button", title: "What can be searched", "aria-label": "What can be searched", onclick: showExamples }, "?");
  const status = h("div", { class: "segments", role: "radiogroup", "aria-label": "Status" });
  for (const [value, label] of STATUSES) {
    status.append(h("button", { type: "button", role: "radio", value, onclick: () => set({ status: value }) }, label));
  }
  const range = h("select", { "aria-label": "Time range", onchange: () => range.value === "custom" ? custom(true) : set({ range: range.value, from: "", to: "" }) }, RANGES.map(([value, label]) => h("option", { value }, label)));
  const from = h("input", { type: "datetime-local", step: 1, "aria-label": "From", onchange: bounds });
  const to = h("input", { type: "datetime-local", step: 1, "aria-label": "To", onchange: bounds });
  const between = h("span", { class: "between", hidden: true }, from, "–", to);
  const file = h("input", { type: "file", accept: ".jsonl,.ndjson,.json,.csv", hidden: true, onchange: importFile });
  const save = (format) => () => api.save("/page/export", { ...Object.fromEntries(state.asked), format }).catch((error) => toast(error.message, true));
  const form = h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => {
      event.preventDefault();
      set({ q: search.value.trim() });
    } },
    h("div", { class: "search-box" }, icon("search"), search, hint),
    status,
    range,
    between,
    h("span", { class: "grow" }),
    menu("Export", [["JSON lines", "as they are stored", save("jsonl")], ["OTLP JSON", "for OpenTelemetry tools", save("otlp")], ["CSV", "for spreadsheets", save("csv")]], "save"),
    h("button", { type: "button", class: "button", title: "Import JSON lines, OTLP JSON or CSV", onclick: () => file.click() }, icon("load"), "Import"),
    file,
  );
  const note = h("p", { class: "list-note", role: "status" });
  const body = h("tbody", {});
  const table = h(
    "table",
    { class: "traces" },
    h("thead", {}, h("tr", {}, ["", "Name", "Started", "Duration", "Spans", "Errors", "Tokens", "Cost", "Tags"].map((text, at) => h("th", { class: at > 2 && at < 8 ? "figure" : "", scope: "col" }, text)))),
    body,
  );
  const sentinel = h("div", { class: "sentinel" });
  const names = h("aside", { class: "names", "aria-label": "Traces by name" });
  const scroller = h("div", { class: "list-scroll" }, note, table, sentinel);
  replace(main, form, h("div", { class: "list-layout" }, scroller, names));
  main.className = "list-page";

  const timeout = { value: 0 };
  search.addEventListener("input", () => {
    clearTimeout(timeout.value);
    timeout.value = setTimeout(() => set({ q: search.value.trim() }), 350);
  });
  addEventListener("popstate", () => {
    state.asked = new URLSearchParams(location.search);
    adopt();
    load();
  });
  document.addEventListener("keydown", onKey);
  new IntersectionObserver((entries) => entries[0].isIntersecting && more(), { root: scroller, rootMargin: "600px" }).observe(sentinel);
  setInterval(ageing, 1000);
  adopt();
  return { start: load, refresh, redraw: () => {} };

  /** Makes the fields say what the address says. */
  function adopt() {
    const asked = (name) => state.asked.get(name) ?? "";
    if (search.value.trim() !== asked("q")) search.value = asked("q");
    for (const button of status.children) button.setAttribute("aria-checked", String(button.value === asked("status")));
    const isCustom = asked("from") !== "" || asked("to") !== "";
    range.value = isCustom ? "custom" : asked("range");
    custom(isCustom);
    from.value = localTime(asked("from"));
    to.value = localTime(asked("to"));
    sessionStorage.setItem(LAST, location.search);
  }

  function custom(on) {
    between.hidden = !on;
  }

  function bounds() {
    const iso = (field) => (field.value ? new Date(field.value).toISOString() : "");
    set({ range: "", from: iso(from), to: iso(to) });
  }

  /** Changes the address, and so what is shown. */
  function set(changes) {
    const before = state.asked.toString();
    clearTimeout(timeout.value);
    for (const [name, value] of Object.entries({ q: search.value.trim(), ...changes })) {
      if (value) state.asked.set(name, value);
      else state.asked.delete(name);
    }
    if (state.asked.toString() === before) return;
    const query = state.asked.toString();
    history.pushState(null, "", query ? `/?${query}` : "/");
    adopt();
    load();
  }

  async function load() {
    state.generation += 1;
    state.traces.clear();
    state.next = null;
    state.lookedAt = 0;
    scroller.scrollTop = 0;
    await fetchPage(true);
    loadNames();
  }

  /** Gets the first page anew, as much of it as is shown. */
  async function refresh() {
    const generation = state.generation;
    const shown = Math.min(Math.max(state.traces.size, PAGE), MOST);
    const answer = await api.get("/page/traces", { ...Object.fromEntries(state.asked), limit: shown });
    if (generation !== state.generation) return;
    if (state.traces.size <= shown) {
      if (answer.traces.length >= state.traces.size || answer.next === null) {
        const before = state.traces;
        state.traces = new Map(answer.traces.map((trace) => [trace.id, trace]));
        state.next = answer.next;
        for (const trace of state.traces.values()) trace.fresh = !before.has(trace.id);
      } else {
        for (const trace of answer.traces) state.traces.set(trace.id, trace);
      }
    } else {
      for (const trace of answer.traces) state.traces.set(trace.id, trace);
    }
    draw();
    fillIn();
    loadNamesSoon();
  }

  async function fetchPage(first) {
    const generation = state.generation;
    state.loading = true;
    try {
      // A search that finds little is answered bit by bit; the page goes on until it has enough.
      let got = 0;
      do {
        const asked = { ...Object.fromEntries(state.asked), limit: PAGE - got };
        if (state.next) asked.after = state.next;
        const answer = await api.get("/page/traces", asked);
        if (generation !== state.generation) return;
        got += answer.traces.length;
        state.lookedAt += answer.looked_at;
        state.next = answer.next;
        for (const trace of answer.traces) state.traces.set(trace.id, trace);
        draw();
      } while (got < PAGE && state.next);
      say();
      fillIn();
    } catch (error) {
      if (generation !== state.generation) return;
      say(error.message, true);
      if (first) draw();
    } finally {
      if (generation === state.generation) state.loading = false;
      say(undefined, note.classList.contains("wrong"));
    }
  }

  function more() {
    if (state.next && !state.loading) fetchPage(false);
  }

  /** Gets the summaries that the list had no time for. */
  async function fillIn() {
    const generation = state.generation;
    for (;;) {
      const missing = [...state.traces.values()].filter((trace) => !trace.summary).map((trace) => trace.id).slice(0, 50);
      if (missing.length === 0 || generation !== state.generation) return;
      const summaries = await api.post("/page/summaries", missing).catch(() => ({}));
      if (Object.keys(summaries).length === 0) return;
      for (const [id, summary] of Object.entries(summaries)) {
        const trace = state.traces.get(id);
        if (!trace) continue;
        if (summary === null) state.traces.delete(id);
        else trace.summary = summary;
      }
      draw();
    }
  }

  /** Statistics walk over many traces, so while spans stream in they are asked for now and then only. */
  function loadNamesSoon() {
    state.namesTimer ??= setTimeout(loadNames, Math.max(0, state.namesAt + NAMES_EVERY_MS - performance.now()));
  }

  async function loadNames() {
    clearTimeout(state.namesTimer);
    state.namesTimer = null;
    state.namesAt = performance.now();
    const generation = state.generation;
    const overview = await api.get("/page/names", Object.fromEntries(state.asked)).catch(() => null);
    if (overview && generation === state.generation) drawNames(overview);
  }

  function say(text, wrong = false) {
    if (text !== undefined) note.textContent = text;
    else if (!wrong) {
      const filtered = [...state.asked.keys()].length > 0;
      if (state.loading && state.lookedAt > 0 && state.traces.size < PAGE) note.textContent = `Looking … ${count(state.lookedAt)} traces looked at`;
      else if (state.traces.size === 0 && !state.loading) note.textContent = filtered ? "No trace fits." : "";
      else note.textContent = "";
    }
    note.classList.toggle("wrong", wrong);
  }

  function draw() {
    const traces = [...state.traces.values()];
    const ended = traces.filter((trace) => (trace.summary?.status ?? trace.status) !== "open");
    const longest = Math.max(1, ...ended.map((trace) => took(trace) ?? 0));
    const old = new Map([...body.children].map((row) => [row.dataset.id, row]));
    const rows = traces.map((trace) => {
      const version = JSON.stringify([trace.summary, trace.status, trace.spans, longest]);
      const known = old.get(trace.id);
      if (known?.version === version) return known;
      const made = line(trace, longest);
      made.version = version;
      if (trace.fresh) made.classList.add("fresh");
      if (state.selected === trace.id) made.classList.add("selected");
      if (known?.contains(document.activeElement)) queueMicrotask(() => made.querySelector("a").focus());
      return made;
    });
    if (rows.length !== body.children.length || rows.some((row, at) => body.children[at] !== row)) body.replaceChildren(...rows);
    table.hidden = traces.length === 0;
    sentinel.hidden = !state.next;
    scroller.querySelector(".empty")?.remove();
    if (traces.length === 0 && !state.next && [...state.asked.keys()].length === 0 && !note.classList.contains("wrong")) scroller.append(empty());
    say(undefined, note.classList.contains("wrong"));
  }

  function line(trace, longest) {
    const { summary } = trace;
    const standing = summary?.status ?? trace.status;
    const startMs = toMs(trace.start);
    const ns = took(trace);
    const bar = h("i", { class: `spark s-${standing}` });
    // By the square root, since a few long traces would leave all others a dot.
    bar.style.width = ns ? `${Math.min(100, Math.max(3, 100 * Math.sqrt(ns / longest)))}%` : "0";
    const warn = [
      summary?.pending && counted(summary.pending, "span whose parent has not arrived", "spans whose parents have not arrived"),
      summary?.lost_attempts && counted(summary.lost_attempts, "attempt lost with its worker", "attempts lost with their workers"),
      summary?.dropped && counted(summary.dropped, "span dropped", "spans dropped"),
    ].filter(Boolean);
    const row = h(
      "tr",
      { "data-id": trace.id, class: `s-${standing}`, onclick: (event) => {
        if (!event.target.closest("a") && !getSelection().toString()) location.assign(href(trace));
      } },
      h("td", { class: "status", title: STATUS_WORDS[standing] }, icon(STATUS_ICONS[standing], `s-${standing}`), h("span", { class: "offscreen" }, STATUS_WORDS[standing])),
      h("td", { class: "name" }, h("a", { href: href(trace), title: trace.id, onfocus: () => select(trace.id, false) }, trace.name ?? "root pending"), h("span", { class: "dim" }, trace.workflow_id ?? trace.group ?? trace.id), warn.length > 0 && h("span", { class: "mark warn", title: warn.join("\n") }, "incomplete")),
      h("td", { class: "when", title: full(startMs) }, h("span", {}, clock(startMs)), h("span", { class: "dim ago", "data-ms": startMs }, ago(startMs))),
      h("td", { class: "figure took" }, h("span", { "data-open": standing === "open" ? startMs : undefined }, ns === null ? "…" : duration(ns)), bar),
      h("td", { class: "figure" }, count(summary?.spans ?? trace.spans), summary?.open > 0 && h("span", { class: "dim" }, ` ${count(summary.open)} open`)),
      h("td", { class: `figure ${summary?.errors ? "bad" : "dim"}` }, summary ? (summary.errors ? count(summary.errors) : "·") : "…"),
      h("td", { class: "figure" }, summary?.tokens ? count(summary.tokens) : ""),
      h("td", { class: "figure" }, summary?.cost ? cost(summary.cost) : ""),
      h("td", { class: "tags" }, (summary?.tags ?? []).map((tag) => h("button", { type: "button", class: "tag", onclick: (event) => {
        event.stopPropagation();
        add(term("tag", tag));
      } }, tag))),
    );
    return row;
  }

  function took(trace) {
    const standing = trace.summary?.status ?? trace.status;
    if (standing === "open") return Math.max(0, (Date.now() + frame.collector.skewMs - toMs(trace.start)) * 1e6);
    const end = trace.summary?.end_ns;
    return end ? Number(BigInt(end) - BigInt(trace.start)) : null;
  }

  function ageing() {
    for (const cell of body.querySelectorAll("[data-ms]")) cell.textContent = ago(Number(cell.dataset.ms));
    for (const cell of body.querySelectorAll("[data-open]")) cell.textContent = duration(Math.max(0, Date.now() + frame.collector.skewMs - Number(cell.dataset.open)) * 1e6);
  }

  function drawNames(overview) {
    const most = Math.max(1, ...overview.names.map((name) => name.count));
    const rows = overview.names.map((name) => {
      const bar = h("i", { class: "share" });
      bar.style.width = `${(100 * name.count) / most}%`;
      return h(
        "tr",
        {},
        h("td", { class: "name" }, name.name === null ? h("span", { class: "dim" }, "root pending") : h("button", { type: "button", title: `Only ${name.name}`, onclick: () => add(term("name", name.name)) }, name.name), bar),
        h("td", { class: "figure" }, count(name.count)),
        h("td", { class: `figure ${name.errors ? "bad" : "dim"}` }, percent(name.errors, name.count)),
        h("td", { class: "figure" }, name.p50_ns === null ? "" : duration(name.p50_ns)),
        h("td", { class: "figure" }, name.p95_ns === null ? "" : duration(name.p95_ns)),
      );
    });
    const errors = overview.names.reduce((sum, name) => sum + name.errors, 0);
    replace(
      names,
      h("h2", {}, "By name"),
      h("p", { class: "dim" }, `${overview.complete ? "" : "latest "}${count(overview.traces)} traces, ${percent(errors, overview.traces)} errors`),
      rows.length > 0 && h("table", {}, h("thead", {}, h("tr", {}, ["Name", "Count", "Err", "p50", "p95"].map((text, at) => h("th", { scope: "col", class: at ? "figure" : "" }, text)))), h("tbody", {}, rows)),
    );
  }

  function add(text) {
    const q = search.value.trim();
    if (q.split(" ").includes(text)) return;
    search.value = q ? `${q} ${text}` : text;
    set({ q: search.value });
  }

  function select(id, focus = true) {
    state.selected = id;
    for (const row of body.children) row.classList.toggle("selected", row.dataset.id === id);
    if (focus) body.querySelector(".selected a")?.focus();
  }

  function onKey(event) {
    if (event.key === "Escape" && event.target === search) search.blur();
    if (isTyping(event)) return;
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (event.key === "/") search.select();
    else if (event.key === "r") load();
    else if (step) {
      const ids = [...state.traces.keys()];
      const at = ids.indexOf(state.selected);
      select(ids[Math.min(ids.length - 1, Math.max(0, at + step))]);
    } else return;
    event.preventDefault();
  }

  async function importFile() {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    try {
      toast(`importing ${chosen.name} …`);
      const { spans } = await api.importFile(chosen);
      toast(`${count(spans)} spans imported`);
      load();
    } catch (error) {
      toast(`not imported: ${error.message}`, true);
    }
  }

  function showExamples() {
    dialog("What can be searched", h("table", { class: "keys" }, h("tbody", {}, EXAMPLES.map(([text, what]) => h("tr", {}, h("th", {}, h("code", {}, text)), h("td", {}, what))))), h("p", { class: "hint" }, "All terms must hold. The address of the page keeps the search."));
  }

  function empty() {
    return h(
      "div",
      { class: "empty" },
      h("h2", {}, "No traces yet"),
      h("p", {}, "Point a sender at this collector, and its spans show up here as they arrive:"),
      h("pre", {}, `export SGP_CLIENT_BASE_URL=${location.origin}\nexport SGP_API_KEY=any SGP_ACCOUNT_ID=any`),
    );
  }
}

const href = (trace) => `/traces/${encodeURIComponent(trace.id)}`;

function localTime(iso) {
  if (!iso) return "";
  const date = new Date(iso);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

// The waterfall: only the rows that are in sight exist, so a trace of a hundred thousand spans scrolls.

import { h, icon, replace } from "./dom.js";
import { counted, duration } from "./format.js";
import { NOTABLE_QUEUE_MS, hasFailed, isRun, look, spansOf } from "./model.js";

const ROW = 26;
const MARGIN = 12;
const MAX_INDENT = 24;

export class Waterfall {
  /** `on` has `select(node)`, `fold(node)` and `zoom(range)`. */
  constructor(on) {
    this.on = on;
    this.rows = [];
    this.pool = new Map();
    this.axis = h("div", { class: "axis" });
    this.brush = h("div", { class: "brush", hidden: true });
    this.head = h("div", { class: "wf-head" }, h("div", { class: "wf-label" }, "Span"), h("div", { class: "wf-time", title: "Drag to zoom in, double-click to zoom out" }, this.axis, this.brush));
    this.space = h("div", { class: "wf-space" });
    this.body = h("div", { class: "wf-body", tabIndex: 0, role: "tree", "aria-label": "Spans of the trace" }, this.space);
    this.element = h("div", { class: "waterfall" }, this.head, this.body);
    this.body.addEventListener("scroll", () => this.schedule());
    this.space.addEventListener("click", (event) => this.clicked(event));
    this.space.addEventListener("dblclick", (event) => {
      const node = this.nodeAt(event);
      if (node?.kids.length) this.on.fold(node);
    });
    new ResizeObserver(() => this.schedule()).observe(this.body);
    // What is pressed must stay until it is let go, or the click would be lost.
    this.body.addEventListener("pointerdown", () => (this.held = true));
    addEventListener("pointerup", () => {
      this.held = false;
      this.schedule();
    });
    this.brushing();
  }

  /** Draws the rows anew. */
  show(model, rows, state) {
    this.model = model;
    this.rows = rows;
    this.state = state;
    this.index = new Map(rows.map((node, at) => [node, at]));
    this.space.style.height = `${rows.length * ROW}px`;
    this.drawAxis();
    this.draw(true);
  }

  schedule() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      if (this.state) this.draw(false);
    });
  }

  /** Brings a row into sight. */
  reveal(node) {
    const at = this.index?.get(node);
    if (at === undefined) return;
    const top = at * ROW;
    const { scrollTop, clientHeight } = this.body;
    if (top < scrollTop + ROW) this.body.scrollTop = Math.max(0, top - 3 * ROW);
    else if (top + 2 * ROW > scrollTop + clientHeight) this.body.scrollTop = top - clientHeight + 4 * ROW;
  }

  draw(anew) {
    this.stale ||= anew;
    if (this.held && anew) return;
    const { scrollTop, clientHeight } = this.body;
    const from = Math.max(0, Math.floor(scrollTop / ROW) - MARGIN);
    const to = Math.min(this.rows.length, Math.ceil((scrollTop + clientHeight) / ROW) + MARGIN);
    const wanted = new Set(this.rows.slice(from, to));
    for (const [node, row] of this.pool) {
      if (this.stale || !wanted.has(node)) {
        row.remove();
        this.pool.delete(node);
      }
    }
    const fresh = document.createDocumentFragment();
    for (let at = from; at < to; at++) {
      const node = this.rows[at];
      if (this.pool.has(node)) continue;
      const row = this.row(node, at);
      this.pool.set(node, row);
      fresh.append(row);
    }
    this.space.append(fresh);
    this.stale = false;
  }

  row(node, at) {
    const { state } = this;
    const { span } = node;
    const selected = state.selected === node;
    const classes = ["wf-row", `s-${node.status}`, `k-${look(span)}`];
    if (isRun(span)) classes.push("run");
    if (selected) classes.push("selected");
    if (state.matches) classes.push(state.matches.has(node) ? "match" : "miss");
    const folded = state.folded.has(span.id);
    const row = h(
      "div",
      {
        class: classes.join(" "), role: "treeitem", id: `row-${at}`,
        "aria-level": node.depth + 1, "aria-selected": String(selected),
        "aria-expanded": node.kids.length ? String(!folded) : undefined,
      },
      this.label(node, folded),
      this.bars(node),
    );
    row.style.top = `${at * ROW}px`;
    row.node = node;
    if (selected) this.body.setAttribute("aria-activedescendant", row.id);
    return row;
  }

  label(node, folded) {
    const { span } = node;
    const label = h("div", { class: "wf-label" });
    label.style.paddingLeft = `${6 + 14 * Math.min(node.depth, MAX_INDENT)}px`;
    const fold = node.kids.length ? h("span", { class: "fold", title: folded ? "Unfold" : "Fold" }, icon(folded ? "right" : "down")) : h("span", { class: "fold" });
    const marks = [];
    const mark = (text, title, tone = "") => marks.push(h("span", { class: `mark ${tone}`, title }, text));
    if (node.place === "attempt") {
      const { attempt, lost } = span.within;
      if (lost) mark(`in #${attempt}, lost`, `A part of attempt ${attempt}, which left no span: it was lost with its worker.`, "bad");
      else mark(`in #${attempt}`, `A part of attempt ${attempt}, whose span comes when it ends.`, "warn");
    }
    if (node.place === "pending") mark("parent pending", `Its parent ${span.parent} has not arrived: it may still be open, or on its way, or lost.`, "warn");
    if (node.place === "cycle") mark("cycle", "It is its own ancestor.", "warn");
    if (node.generation) mark(`gen ${node.generation}`, "A run that continued as new: each run is a generation.");
    if (span.kind === "activity_attempt" && span.attempt) mark(`attempt ${span.attempt}`, "");
    if (node.attemptCount > 1) mark(`×${node.attemptCount}`, `${node.attemptCount} attempts`, "warn");
    for (const lost of node.lost) mark(`#${lost} lost`, `No span of attempt ${lost} arrived: lost with its worker.`, "bad");
    if (node.queueMs >= NOTABLE_QUEUE_MS) mark(`queued ${duration(node.queueMs * 1e6)}`, "Waited for a worker that long.");
    if (span.dropped) mark(`${span.dropped} dropped`, "So many spans of this run were dropped: over its limits, or refused by the sink.", "bad");
    if (span.truncated) mark("cut", "A value was over the limit and was cut; the detail pane says which.");
    if (span.abandoned) mark("given up", "The code that it covers was given up before it ended.", "warn");
    if (folded) {
      const own = spansOf(node);
      const [below, failed] = [node.spans - own.length, node.failed - own.filter(hasFailed).length];
      mark(failed ? `+${below}, ${failed} failed` : `+${below}`, `${counted(below, "span", "spans")} below, ${failed} of them failed`, failed ? "bad" : "");
    }
    const id = isRun(span) && span.workflow_id ? h("span", { class: "dim" }, span.workflow_id) : null;
    label.append(fold, icon(look(span)), h("span", { class: "name", title: span.name }, span.name), ...marks, id ?? "");
    return label;
  }

  bars(node) {
    const [from, to] = this.state.range;
    const time = h("div", { class: "wf-time" });
    const width = to - from;
    const at = (ns) => (100 * (Math.min(Math.max(ns, from), to) - from)) / width;
    const put = (start, end, kind, title) => {
      if (end < from || start > to) return null;
      const bar = h("i", { class: kind, title });
      bar.style.left = `${at(start)}%`;
      bar.style.width = `${at(end) - at(start)}%`;
      time.append(bar);
      return bar;
    };
    if (node.workStart > node.start) put(node.start, node.workStart, "wait", `waited ${duration(node.workStart - node.start)}`);
    if (node.attempts.length > 0) {
      put(node.start, node.end, "frame");
      for (const attempt of node.attempts) {
        const end = attempt.end ?? node.end;
        if (attempt.queue_ms) put(Math.max(node.start, attempt.start - attempt.queue_ms * 1e6), attempt.start, "wait", `queued ${duration(attempt.queue_ms * 1e6)}`);
        put(attempt.start, end, `bar ${attempt.status === "ERROR" ? "failed" : ""}`, `attempt ${attempt.attempt}`);
      }
    } else {
      if (node.queueMs && span_is_attempt(node)) put(node.start - node.queueMs * 1e6, node.start, "wait", `queued ${duration(node.queueMs * 1e6)}`);
      put(Math.max(node.workStart, node.start), node.end, `bar ${node.status === "error" ? "failed" : ""}`);
    }
    for (const [start, end] of this.state.critical?.get(node) ?? []) put(start, end, "critical");
    const left = at(node.start);
    const right = at(node.end);
    const inSight = node.end >= from && node.start <= to;
    const text = h("span", { class: "took" }, duration(node.end - node.start), node.span.error && h("em", {}, ` ${node.span.error.split("\n", 1)[0]}`));
    // Where there is more room.
    if (!inSight) {
      text.classList.add("away");
      text.textContent = node.end < from ? "‹" : "›";
      if (node.end < from) text.style.left = "0";
      else text.style.right = "4px";
    } else if (right < 72 || (right < 88 && 100 - right > left)) text.style.left = `calc(${right}% + 6px)`;
    else if (left > 12) text.style.right = `calc(${100 - left}% + 6px)`;
    else {
      text.style.right = `calc(${100 - right}% + 6px)`;
      text.classList.add("inside");
    }
    time.append(text);
    return time;
  }

  drawAxis() {
    const [from, to] = this.state.range;
    const step = niceStep((to - from) / 7);
    const ticks = [];
    for (let ns = Math.ceil(from / step) * step; ns < to - step / 4; ns += step) {
      const tick = h("span", {}, ns === 0 ? "0" : duration(ns));
      tick.style.left = `${(100 * (ns - from)) / (to - from)}%`;
      ticks.push(tick);
    }
    replace(this.axis, ticks);
    this.element.style.setProperty("--tick", `${(100 * step) / (to - from)}%`);
    this.element.style.setProperty("--tick-from", `${(100 * (Math.ceil(from / step) * step - from)) / (to - from)}%`);
  }

  nodeAt(event) {
    return event.target.closest?.(".wf-row")?.node;
  }

  clicked(event) {
    const node = this.nodeAt(event);
    if (!node) return;
    if (event.target.closest(".fold") && node.kids.length) this.on.fold(node);
    else this.on.select(node);
  }

  /** Dragging over the axis zooms in. */
  brushing() {
    const area = this.head.lastChild;
    let start = null;
    const place = (event) => {
      const box = area.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    };
    const paint = (a, b) => {
      this.brush.hidden = false;
      this.brush.style.left = `${100 * Math.min(a, b)}%`;
      this.brush.style.width = `${100 * Math.abs(a - b)}%`;
    };
    area.addEventListener("pointerdown", (event) => {
      start = place(event);
      area.setPointerCapture(event.pointerId);
    });
    area.addEventListener("pointermove", (event) => start !== null && paint(start, place(event)));
    area.addEventListener("pointerup", (event) => {
      const end = place(event);
      this.brush.hidden = true;
      const [from, to] = this.state.range;
      if (start !== null && Math.abs(end - start) > 0.01) {
        const ns = (part) => from + part * (to - from);
        this.on.zoom([ns(Math.min(start, end)), ns(Math.max(start, end))]);
      }
      start = null;
    });
    area.addEventListener("dblclick", () => this.on.zoom(null));
  }
}

function span_is_attempt(node) {
  return node.span.kind === "activity_attempt";
}

function niceStep(raw) {
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  const units = raw > 6e10 ? [6e10, 12e10, 3e11, 6e11, 18e11, 36e11, 72e11, 216e11, 864e11] : [1, 2, 5, 10].map((n) => n * power);
  return units.find((unit) => unit >= raw) ?? 10 ** Math.ceil(Math.log10(raw));
}

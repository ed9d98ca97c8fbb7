// Makes of the rows of a trace what is drawn: a tree in which what belongs together is one line.

const STATUS = { ERROR: "error", CANCELED: "canceled", SUCCESS: "success" };

/** Queue times from this on are worth a word, in milliseconds. */
export const NOTABLE_QUEUE_MS = 20;

/**
 * One line of the tree.
 * @typedef {object} Node
 * @property {object} span the span that the line is of
 * @property {object[]} also spans that share the line: the only attempt of an activity, the call of a child run
 * @property {Node[]} kids
 * @property {number} depth
 * @property {string} place `child`, `root`, `pending` (its parent has not arrived), `attempt` (its parent is an attempt
 *   without a span) or `cycle`
 * @property {object[]} attempts spans of the attempts of an activity that took several
 * @property {string[]} lost attempts that left no span
 * @property {number} generation 1 and up where a run continued as new, else 0
 */

/** Builds the tree. `nowNs` is the time, counted from the trace's base, at which open spans end. */
export function build(trace, nowNs) {
  const byId = new Map(trace.spans.map((span) => [span.id, span]));
  const below = new Map();
  const tops = [];
  for (const span of trace.spans) {
    const above = span.within?.activity ?? span.parent;
    if (above === undefined) tops.push([span, "root"]);
    else if (!byId.has(above)) tops.push([span, "pending"]);
    else if (below.has(above)) below.get(above).push(span);
    else below.set(above, [span]);
  }
  const seen = new Set();
  const nodeOf = new Map();
  const roots = [];
  const stack = [];
  const make = (span, place, generation = 0) => {
    const node = { span, also: [], kids: [], depth: 0, place, attempts: [], lost: [], generation, parent: null };
    seen.add(span.id);
    nodeOf.set(span.id, node);
    stack.push(node);
    return node;
  };
  const grow = () => {
    while (stack.length > 0) {
      const node = stack.pop();
      let spans = [...(below.get(node.span.id) ?? [])];
      const shared = sharesLine(node, spans, below);
      if (shared) {
        node.also.push(node.span);
        seen.add(shared.id);
        nodeOf.set(shared.id, node);
        spans = spans.filter((span) => span !== shared).concat(below.get(shared.id) ?? []);
        spans.sort((a, b) => a.start - b.start);
        if (node.span.kind === "child_workflow") node.span = shared;
        else node.also = [shared];
      } else if (node.span.kind === "activity") {
        noteAttempts(node, spans);
      }
      for (const span of spans) {
        if (seen.has(span.id)) continue;
        const kid = make(span, span.within ? "attempt" : "child");
        if (span.continued && isRun(node.span)) kid.continues = node;
        node.kids.push(kid);
        kid.parent = node;
      }
    }
  };
  for (const [span, place] of tops) roots.push(make(span, place));
  grow();
  // What no top leads to hangs on a cycle.
  for (const span of trace.spans) {
    if (!seen.has(span.id)) {
      roots.push(make(span, "cycle"));
      grow();
    }
  }
  liftGenerations(roots);
  roots.sort((a, b) => a.span.start - b.span.start);

  const order = [];
  const walk = [...roots].reverse();
  while (walk.length > 0) {
    const node = walk.pop();
    node.depth = node.parent ? node.parent.depth + 1 : 0;
    node.order = order.length;
    order.push(node);
    for (let at = node.kids.length - 1; at >= 0; at--) walk.push(node.kids[at]);
  }
  let endNs = 1;
  for (const node of order) {
    time(node, nowNs);
    endNs = Math.max(endNs, node.end);
  }
  for (let at = order.length - 1; at >= 0; at--) {
    const node = order[at];
    const spans = spansOf(node);
    node.size = node.kids.reduce((sum, kid) => sum + kid.size, 1);
    // Spans, as all figures count them, not lines: the node's own and all below.
    node.spans = node.kids.reduce((sum, kid) => sum + kid.spans, spans.length);
    node.failed = node.kids.reduce((sum, kid) => sum + kid.failed, spans.filter(hasFailed).length);
  }
  return { roots, order, nodeOf, endNs, spans: trace.spans, total: trace.total };
}

/** Recomputes the times of what is open. */
export function tick(model, nowNs) {
  let grows = false;
  for (const node of model.order) {
    if (!node.open) continue;
    node.end = Math.max(node.start, nowNs);
    model.endNs = Math.max(model.endNs, node.end);
    grows = true;
  }
  return grows;
}

/** All spans that share the line. */
export function spansOf(node) {
  return [node.span, ...node.also];
}

export function hasFailed(span) {
  return span.status === "ERROR";
}

function time(node, nowNs) {
  const { span } = node;
  node.open = span.end === undefined;
  node.start = span.start;
  node.end = node.open ? Math.max(span.start, nowNs) : span.end;
  node.status = node.open ? "open" : (STATUS[span.status] ?? "success");
  // Where waiting for a worker began: the schedule of an activity, the call of a child run.
  const call = node.also.find((also) => also.kind === "child_workflow");
  if (call) node.start = Math.min(call.start, node.start);
  node.workStart = call ? span.start : node.start;
  const attempt = node.also.find((also) => also.kind === "activity_attempt");
  if (attempt) {
    node.workStart = attempt.start;
    node.queueMs = attempt.queue_ms;
  }
  if (span.kind === "activity_attempt") node.queueMs = span.queue_ms;
}

export function isRun(span) {
  return span.kind === "workflow";
}

/** The child that says no more than its parent: the only attempt, or the run of a call. */
function sharesLine(node, spans, below) {
  const { span } = node;
  const same = (other) =>
    span.status === other.status && (span.end === undefined) === (other.end === undefined) && span.error === other.error;
  if (span.kind === "activity") {
    const attempts = spans.filter((other) => other.kind === "activity_attempt");
    const [only] = attempts;
    if (spans.some((other) => other.within)) return null;
    return attempts.length === 1 && only.attempt === 1 && only.end !== undefined && same(only) ? only : null;
  }
  if (span.kind === "child_workflow" && spans.length === 1) {
    const [only] = spans;
    // A run that continued as new ended before its call did.
    return isRun(only) && only.name === span.name && (same(only) || only.continued_as_new) ? only : null;
  }
  void below;
  return null;
}

function noteAttempts(node, spans) {
  node.attempts = spans.filter((span) => span.kind === "activity_attempt" && span.attempt > 0);
  const numbers = [...new Set(node.attempts.map((span) => span.attempt))].sort((a, b) => a - b);
  const lost = spans.filter((span) => span.within?.lost).map((span) => span.within.attempt);
  const last = Math.max(0, ...numbers, ...new Set(lost));
  let before = 0;
  for (const number of [...numbers, last + 1]) {
    if (number - before === 2) node.lost.push(`${before + 1}`);
    if (number - before > 2) node.lost.push(`${before + 1}-${number - 1}`);
    before = number;
  }
  node.attemptCount = last;
}

/** A run that continues another one stands beside it, not below: a chain of a hundred runs is flat. */
function liftGenerations(roots) {
  const lift = (siblings, parent) => {
    for (let at = 0; at < siblings.length; at++) {
      const node = siblings[at];
      const next = node.kids.filter((kid) => kid.continues === node);
      if (next.length === 0) continue;
      node.generation ||= 1;
      node.kids = node.kids.filter((kid) => kid.continues !== node);
      for (const kid of next) {
        kid.parent = parent;
        kid.generation = node.generation + 1;
      }
      siblings.splice(at + 1, 0, ...next);
    }
  };
  const stack = [[roots, null]];
  while (stack.length > 0) {
    const [siblings, parent] = stack.pop();
    lift(siblings, parent);
    for (const node of siblings) if (node.kids.length > 0) stack.push([node.kids, node]);
  }
}

/** The rows that are seen while some nodes are folded. */
export function visible(model, folded) {
  const rows = [];
  const { order } = model;
  for (let at = 0; at < order.length; ) {
    const node = order[at];
    rows.push(node);
    at += folded.has(node.span.id) ? node.size : 1;
  }
  return rows;
}

/**
 * The critical path: for each moment, going back from the end, the span that the trace waited for.
 * Gives the segments of each node, in nanoseconds.
 */
export function criticalPath(model) {
  const segments = new Map();
  const add = (node, from, to) => {
    if (to <= from) return;
    if (!segments.has(node)) segments.set(node, []);
    segments.get(node).push([from, to]);
  };
  const top = { kids: model.roots.filter((node) => node.place !== "cycle"), start: 0 };
  const stack = [[top, model.endNs]];
  while (stack.length > 0) {
    const [node, end] = stack.pop();
    let until = end;
    const kids = [...node.kids].filter((kid) => kid.start < end).sort((a, b) => b.end - a.end || b.start - a.start);
    for (const kid of kids) {
      if (until <= node.start) break;
      const kidEnd = Math.min(kid.end, end);
      // Only what ended by the time that is waited for can be what was waited for.
      if (kidEnd > until || kid.start >= until) continue;
      if (node !== top) add(node, kidEnd, until);
      stack.push([kid, kidEnd]);
      until = Math.max(kid.start, node.start);
    }
    if (node !== top) add(node, node.start, until);
  }
  return segments;
}

/** Time within a node that none of its kids covers, in nanoseconds. */
export function selfTime(node) {
  let covered = 0;
  let until = node.start;
  for (const kid of [...node.kids].sort((a, b) => a.start - b.start)) {
    const from = Math.max(kid.start, until);
    const to = Math.min(kid.end, node.end);
    if (to > from) {
      covered += to - from;
      until = to;
    }
  }
  return Math.max(0, node.end - node.start - covered);
}

/** Figures for each name, most time first. */
export function byName(model) {
  const names = new Map();
  for (const node of model.order) {
    for (const span of spansOf(node)) {
      const { name } = span;
      if (!names.has(name)) names.set(name, { name, count: 0, errors: 0, total: 0, self: 0, tokens: 0, cost: 0, durations: [], first: node });
      const entry = names.get(name);
      const took = (span.end ?? node.end) - span.start;
      entry.count += 1;
      entry.errors += hasFailed(span) ? 1 : 0;
      entry.total += took;
      // That of the line, once.
      entry.self += span === node.span ? selfTime(node) : 0;
      entry.tokens += span.tokens ?? 0;
      entry.cost += span.cost ?? 0;
      entry.durations.push(took);
    }
  }
  for (const entry of names.values()) {
    entry.durations.sort((a, b) => a - b);
    const quantile = (q) => entry.durations[Math.max(0, Math.ceil(q * entry.durations.length) - 1)];
    Object.assign(entry, { p50: quantile(0.5), p95: quantile(0.95), max: quantile(1) });
  }
  return [...names.values()].sort((a, b) => b.self - a.self);
}

/** What kind of picture and colour a span has. */
export function look(span) {
  switch (span.kind) {
    case "workflow": return "run";
    case "child_workflow": return "call";
    case "activity": return "activity";
    case "activity_attempt": return "attempt";
    case "signal":
    case "update": return "message";
    default:
      if (/COMPLETION|AGENT|PROMPT|TEXT_/.test(span.type)) return "model";
      return "span";
  }
}

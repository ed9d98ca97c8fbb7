// The pane about one span: what is known, and what cannot be known and why.

import { getText } from "./api.js";
import { copy, h, icon, iconButton, replace } from "./dom.js";
import { count, duration, exactClock, exactCost, full, term } from "./format.js";
import { parse, section } from "./json.js";
import { conversation } from "./messages.js";
import { isRun, look, selfTime } from "./model.js";

/** Metadata that has a place of its own in the pane. */
const SHOWN = ["error", "error_type", "error_message", "error_category", "error_stack", "error_data", "usage", "events", "metrics", "tags", "truncated", "durable_spans.dropped"];

export class Detail {
  constructor(traceId, frame, on) {
    this.traceId = traceId;
    this.frame = frame;
    this.on = on;
    this.element = h("aside", { class: "detail", "aria-label": "Span" });
    this.hide();
  }

  hide() {
    this.node = null;
    this.element.hidden = true;
  }

  /** Shows a line, and of the spans that share it `span`. */
  async show(node, baseMs, span = node.span) {
    const again = this.node?.span.id === node.span.id && this.span?.id === span.id;
    this.node = node;
    this.span = span;
    this.element.hidden = false;
    if (!again) replace(this.element, this.head(node, span), h("div", { class: "detail-body" }, this.facts(node, span, baseMs)));
    let text;
    try {
      text = await getText("/page/span", { trace: this.traceId, id: span.id });
    } catch (error) {
      this.element.append(h("p", { class: "note bad" }, error.message));
      return;
    }
    if (this.span !== span) return;
    if (again && text === this.text) return;
    this.text = text;
    const scroll = again ? this.element.querySelector(".detail-body")?.scrollTop : 0;
    const body = h("div", { class: "detail-body" }, this.notes(node, span), this.facts(node, span, baseMs), this.content(parse(text), node));
    replace(this.element, this.head(node, span), body);
    body.scrollTop = scroll;
  }

  head(node, span) {
    const tabs = node.also.length
      ? h("div", { class: "tabs small", role: "tablist" }, [node.span, ...node.also].map((one) =>
          h("button", { type: "button", role: "tab", "aria-selected": String(one === span), onclick: () => this.on.show(node, one) }, word(one))))
      : null;
    const link = this.frame.temporalLink(runOf(node));
    return h(
      "header",
      {},
      h("h2", {}, icon(look(span)), h("span", { title: span.name }, span.name), iconButton("close", "Close (Esc)", this.on.close)),
      tabs,
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", class: "button", onclick: () => copy(this.on.permalink(span), "link") }, icon("link"), "Link"),
        h("button", { type: "button", class: "button", onclick: () => copy(this.text ?? "", "span") }, icon("copy"), "JSON"),
        h("button", { type: "button", class: "button", title: "This span and all below it as compact JSON, for a language model", onclick: () => this.copyCompact(span) }, icon("model"), "Copy for LLM"),
        link && h("a", { class: "button", href: link, target: "_blank", rel: "noopener noreferrer" }, icon("out"), "Temporal"),
      ),
    );
  }

  async copyCompact(span) {
    copy(await getText("/page/export", { trace: this.traceId, span: span.id, format: "compact" }), "subtree");
  }

  notes(node, span) {
    const notes = [];
    const note = (text, tone) => notes.push(h("p", { class: `note ${tone}` }, text));
    if (node.place === "pending") note("Its parent has not arrived. A run sends its spans when they end or when it flushes, so the parent may still be open or on its way; or its worker died before it could send it.", "warn");
    if (node.place === "cycle") note("The span is its own ancestor, so it has no place in the tree.", "bad");
    for (const lost of node.lost) note(`Attempt ${lost} left no span: it was lost with its worker. Temporal's history of the run tells when it was tried.`, "bad");
    if (span.dropped) note(`${count(span.dropped)} spans of this run were dropped: over its limits (buffer_full) or refused by the sink (rejected).`, "bad");
    if (span.abandoned) note("The code that the span covers was given up before it ended, so how it would have ended is not known.", "warn");
    if (span.end === undefined) note("Open: it has started, and its end has not arrived.", "info");
    return notes;
  }

  facts(node, span, baseMs) {
    const own = span === node.span;
    const end = span.end ?? node.end;
    const startMs = baseMs + span.start / 1e6;
    const rows = [
      ["Status", h("span", { class: `word s-${span.end === undefined ? "open" : span.status.toLowerCase()}` }, span.end === undefined ? "open" : span.status.toLowerCase())],
      ["Took", [duration(end - span.start), own && node.kids.length > 0 && h("span", { class: "dim" }, ` self ${duration(selfTime(node))}`)]],
      ["Start", h("span", { title: full(startMs) }, exactClock(startMs), h("span", { class: "dim" }, ` +${duration(span.start)}`))],
      span.end !== undefined && ["End", exactClock(baseMs + span.end / 1e6)],
      ["Type", span.type.toLowerCase().replaceAll("_", " ")],
      span.kind && ["Kind", span.kind.replaceAll("_", " ")],
      span.attempt !== undefined && ["Attempt", String(span.attempt)],
      span.queue_ms !== undefined && ["Queued", duration(span.queue_ms * 1e6)],
      node.attemptCount > 1 && own && ["Attempts", String(node.attemptCount)],
      span.model && ["Model", span.model],
      span.tokens && ["Tokens", count(span.tokens)],
      span.cost && ["Cost", exactCost(span.cost)],
      span.workflow_id && ["Workflow", copyable(span.workflow_id)],
      span.run_id && ["Run", copyable(span.run_id)],
      ["Span", copyable(span.id)],
      span.parent && ["Parent", this.on.knows(span.parent) ? h("a", { href: "#", onclick: (event) => {
        event.preventDefault();
        this.on.go(span.parent);
      } }, span.parent) : copyable(span.parent)],
    ];
    return h("dl", { class: "facts" }, rows.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  content(span, node) {
    const metadata = span.metadata ?? {};
    const sections = [];
    const add = (title, value, open, linkOf) => {
      if (value === undefined || value === null || (typeof value === "object" && Object.keys(value).length === 0)) return;
      sections.push(section(title, value, open, linkOf));
    };
    if (metadata.error_message !== undefined || span.status === "ERROR") {
      const kind = [metadata.error_type, metadata.error_category].filter((text) => typeof text === "string").join(", ");
      sections.push(
        h("div", { class: "error-box" }, h("b", {}, kind || "error"), h("pre", {}, text(metadata.error_message ?? "no message")), metadata.error_stack && h("pre", { class: "dim" }, text(metadata.error_stack))),
      );
      add("Error data", metadata.error_data);
    }
    if (Array.isArray(metadata.truncated)) sections.push(h("p", { class: "note warn" }, "Over the limits of the run, so cut: ", h("code", {}, metadata.truncated.map(text).join(", "))));
    if (node.attempts.length > 0 && this.span === node.span) sections.push(this.attempts(node));
    const messages = conversation(span);
    if (messages) sections.push(messages);
    // What the messages say already is there for those who want it to the letter.
    add("Input", span.input, !messages);
    add("Output", span.output, !messages);
    add("Expected", span.expected);
    const typed = metadata.openai_metadata;
    add("Model settings", typed?.model_config);
    add("Usage", metadata.usage ?? typed?.usage ?? typed?.data?.usage);
    add("Events", metadata.events);
    add("Metrics", metadata.metrics);
    if (Array.isArray(metadata.tags)) sections.push(h("div", { class: "tags" }, metadata.tags.map((tag) => h("span", { class: "tag" }, text(tag)))));
    add("Metadata", Object.fromEntries(Object.entries(metadata).filter(([key]) => !SHOWN.includes(key))), true, alike);
    const rest = Object.fromEntries(["group_id", "account_id", "application_interaction_id", "application_variant_id", "obs_trace_id", "obs_span_id"].filter((key) => span[key]).map((key) => [key, span[key]]));
    add("More", rest, false);
    return sections;
  }

  attempts(node) {
    const rows = node.attempts.map((attempt) =>
      h("tr", {}, h("td", {}, h("a", { href: "#", onclick: (event) => {
        event.preventDefault();
        this.on.go(attempt.id);
      } }, `#${attempt.attempt}`)), h("td", { class: `s-${attempt.status.toLowerCase()}` }, attempt.status.toLowerCase()),
      h("td", {}, duration((attempt.end ?? node.end) - attempt.start)), h("td", { class: "dim" }, attempt.queue_ms === undefined ? "" : `queued ${duration(attempt.queue_ms * 1e6)}`), h("td", { class: "dim cut", title: attempt.error ?? "" }, attempt.error ?? "")));
    return h("details", { class: "section", open: true }, h("summary", {}, h("span", {}, "Attempts")), h("table", { class: "attempts" }, h("tbody", {}, rows)));
  }
}

/** The list of the traces that say the same. */
function alike(key, value) {
  if (!/^[\p{L}\p{N}._-]+$/u.test(key) || value === "" || value.length > 200) return null;
  return `/?${new URLSearchParams({ q: term(key, value) })}`;
}

function text(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function word(span) {
  return (span.kind ?? "span").replaceAll("_", " ");
}

function copyable(id) {
  return h("span", { class: "id" }, h("code", { title: id }, id), iconButton("copy", "Copy", () => copy(id, "id"), "tiny"));
}

/** The run that a line belongs to, for what only runs know. */
function runOf(node) {
  for (let at = node; at; at = at.parent) if (isRun(at.span)) return at.span;
  return node.span;
}

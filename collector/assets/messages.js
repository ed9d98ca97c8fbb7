// Shows what went into a language model and what came out of it as a conversation, where it is one.

import { copy, h, iconButton } from "./dom.js";
import { stringify } from "./json.js";

/** Messages that are shown at once, the last ones, and characters of a message. */
const SHOWN = 30;
const TEXT = 4000;

/** The fields of a span's input and output that may hold messages. */
const FIELDS = ["messages", "input", "message", "output"];

/** A section with the messages of a span, or null if it holds none. */
export function conversation(span) {
  const messages = [...of(span.input), ...of(span.output)];
  if (messages.length === 0) return null;
  const text = messages.map(({ role, text }) => `${role}: ${text}`).join("\n\n");
  const copyAll = iconButton("copy", "Copy Messages", (event) => {
    event.preventDefault();
    copy(text, "messages");
  });
  const earlier = messages.slice(0, -SHOWN);
  const more = earlier.length > 0 && h("button", { type: "button", class: "more", onclick: () => more.replaceWith(...earlier.map(bubble)) }, `${earlier.length} earlier messages`);
  return h(
    "details",
    { class: "section", open: true },
    h("summary", {}, h("span", {}, "Messages", messages.length > 1 && h("small", {}, String(messages.length))), copyAll),
    h("div", { class: "messages" }, more, messages.slice(-SHOWN).map(bubble)),
  );
}

function of(fields) {
  if (fields === null || typeof fields !== "object") return [];
  for (const name of FIELDS) {
    const value = fields[name];
    const list = (Array.isArray(value) ? value : [value]).filter(Boolean);
    if (list.some(isMessage)) return list.map(read);
  }
  return [];
}

function isMessage(item) {
  return typeof item === "object" && typeof item.role === "string" && ["content", "parts", "tool_calls"].some((name) => name in item);
}

function read(item) {
  if (!isMessage(item)) return { role: typeof item.type === "string" ? item.type.replaceAll("_", " ") : "item", text: plain(item) };
  const calls = (item.tool_calls ?? []).map((call) => `→ ${call?.function?.name ?? call?.name ?? "tool"}(${plain(call?.function?.arguments ?? call?.arguments ?? "")})`);
  const parts = item.content ?? item.parts;
  const texts = (Array.isArray(parts) ? parts : [parts]).filter((part) => part !== null && part !== undefined).map(plain);
  return { role: item.role, text: [...texts, ...calls].join("\n") };
}

/** A part of a message as text; what is no text stays JSON. */
function plain(part) {
  if (typeof part === "string") return part;
  if (typeof part?.text === "string") return part.text;
  if (typeof part?.content === "string" && !("role" in part)) return part.content;
  return stringify(part);
}

function bubble({ role, text }) {
  const body = h("div", { class: "said" }, text.slice(0, TEXT));
  const more = text.length > TEXT && h("button", { type: "button", class: "more", onclick: () => {
    body.textContent = text;
    more.remove();
  } }, `all ${text.length} characters`);
  return h("div", { class: `message by-${["user", "assistant", "system", "tool"].includes(role) ? role : "other"}` }, h("b", {}, role), body, more);
}

// How figures read. The same words as those of the text tree.

/** A duration in nanoseconds: `850us`, `12ms`, `1.234s`, `2m 05s`. */
export function duration(ns) {
  const us = Math.floor(ns / 1e3);
  const ms = Math.floor(us / 1e3);
  const s = Math.floor(ms / 1e3);
  const two = (n) => String(n).padStart(2, "0");
  if (ms === 0) return `${us}us`;
  if (ms < 1e3) return ms < 10 ? `${(us / 1e3).toFixed(1)}ms` : `${ms}ms`;
  if (s < 60) return `${s}.${String(ms % 1e3).padStart(3, "0").slice(0, 2)}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${two(s % 60)}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${two(Math.floor(s / 60) % 60)}m`;
  return `${Math.floor(s / 86400)}d ${two(Math.floor(s / 3600) % 24)}h`;
}

/** A count: `950`, `12.3k`, `4.56M`. */
export function count(n) {
  if (n < 10_000) return String(n);
  if (n < 1e6) return `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)}k`;
  return `${(n / 1e6).toFixed(2)}M`;
}

export function cost(amount) {
  if (amount === 0) return "";
  return amount < 0.01 ? `$${amount.toPrecision(2)}` : `$${amount.toFixed(2)}`;
}

/** What a single call costs, which is often less than a cent, with the digits that tell. */
export function exactCost(amount) {
  return `$${Number(amount.toPrecision(4))}`;
}

/** `1 span`, `2.5k spans`. */
export function counted(n, one, many) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function percent(part, whole) {
  if (whole === 0 || part === 0) return "0%";
  const value = (100 * part) / whole;
  return value < 1 ? "<1%" : `${Math.round(value)}%`;
}

/** Milliseconds since 1970 of nanoseconds as text. */
export function toMs(ns) {
  return Number(BigInt(ns) / 1000n) / 1000;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

/** The time of day, with the day where it is not today. */
export function clock(ms) {
  const date = new Date(ms);
  const today = new Date().toDateString() === date.toDateString();
  return today ? CLOCK.format(date) : `${DAY.format(date)} ${CLOCK.format(date)}`;
}

/** The time of day to the millisecond. */
export function exactClock(ms) {
  return `${clock(ms)}.${String(Math.floor(((ms % 1000) + 1000) % 1000)).padStart(3, "0")}`;
}

export function full(ms) {
  return FULL.format(new Date(ms));
}

/** How long ago: `3s ago`. */
export function ago(ms) {
  const s = Math.max(0, Math.round((Date.now() - ms) / 1e3));
  if (s < 60) return `${s}s ago`;
  if (s < 3600) return `${Math.floor(s / 60)}m ago`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ago`;
  return `${Math.floor(s / 86400)}d ago`;
}

export const STATUS_WORDS = { success: "ok", error: "error", canceled: "canceled", open: "open", pending: "root pending" };
export const STATUS_ICONS = { success: "ok", error: "error", canceled: "canceled", open: "open", pending: "pending" };

/** A term of the search, in quotes where it needs them. */
export function term(key, value) {
  return /^[^\s"]+$/.test(value) ? `${key}:${value}` : `${key}:"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

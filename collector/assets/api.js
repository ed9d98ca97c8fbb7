// Asks the collector. A key, where it wants one, lasts as long as the tab.

const KEY = "durable-spans.key";

/** What the collector refused, in its own words. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function request(method, path, parameters, body) {
  const query = new URLSearchParams(parameters).toString();
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers["x-api-key"] = key;
  if (typeof body === "string") headers["content-type"] = "application/json";
  const response = await fetch(query ? `${path}?${query}` : path, { method, headers, body });
  if (response.ok) return response;
  let detail = response.statusText;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // Not the collector's own words, so there are none.
  }
  throw new Refused(response.status, detail);
}

/** The JSON of an answer, `null` where nothing has changed. */
export async function get(path, parameters = {}) {
  const response = await request("GET", path, parameters);
  return response.status === 204 ? null : response.json();
}

export async function getText(path, parameters) {
  return (await request("GET", path, parameters)).text();
}

export async function post(path, value) {
  return (await request("POST", path, {}, JSON.stringify(value))).json();
}

/** Saves an answer as a file. Without a key the browser does it itself, however big the file is. */
export async function save(path, parameters) {
  let url = `${path}?${new URLSearchParams(parameters)}`;
  let name = "";
  if (hasKey()) {
    const response = await request("GET", path, parameters);
    name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition"))?.[1] ?? "spans";
    url = URL.createObjectURL(await response.blob());
  }
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  if (name) setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Has the collector store the spans of a file, however long it is; gives their number. */
export async function importFile(file) {
  return (await request("POST", "/page/import", {}, file)).json();
}

/**
 * Calls `start` once the collector answers, `changed` when its store has changed since, and `state` with live, offline,
 * locked or refused. Gives a function that looks at once.
 */
export function watch({ start, changed, state }) {
  let seen;
  let timer;
  const poll = async () => {
    clearTimeout(timer);
    let pause = 1000;
    // A tab that nobody sees asks for nothing, once it has something to show.
    if (!document.hidden || seen === undefined) {
      try {
        const answer = await get("/page/changes");
        state("live", answer);
        if (seen !== answer.version) {
          const began = performance.now();
          const first = seen === undefined;
          seen = answer.version;
          await (first ? start() : changed());
          // A page that takes long to fetch is fetched less often.
          pause = Math.max(pause, 4 * (performance.now() - began));
        }
      } catch (error) {
        state({ 401: "locked", undefined: "offline" }[error.status] ?? "refused", error);
        // What was missed meanwhile is not known.
        seen &&= "";
        pause = 2500;
      }
    }
    clearTimeout(timer);
    timer = setTimeout(poll, pause);
  };
  document.addEventListener("visibilitychange", () => document.hidden || poll());
  poll();
  return poll;
}

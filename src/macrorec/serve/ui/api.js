// How does the page ask the server? Every error becomes one line; the key stays in this tab.

const PLACE = "macrorec-key";
const PATIENCE = 15_000; // milliseconds
let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return ""; // storage is switched off: the key lasts as long as the page
  }
}

export function theKey() {
  return key;
}

export function useKey(text) {
  key = text.trim();
  try {
    if (key) sessionStorage.setItem(PLACE, key);
    else sessionStorage.removeItem(PLACE);
  } catch {
    // as above
  }
}

export class Trouble extends Error {
  constructor(line, status = 0) {
    super(line);
    this.status = status;
  }
}

// The server's answer: an object, or text where `text` says so. Throws Trouble with a line for people.
export async function ask(path, { method, body, headers = {}, text = false } = {}) {
  const sent = { ...headers };
  if (key) sent["X-API-Key"] = key;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer, content;
  try {
    answer = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: new Headers(sent),
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    });
    content = await answer.text();
  } catch (error) {
    if (error.name === "TimeoutError") throw new Trouble(`No answer within ${PATIENCE / 1000} seconds.`);
    if (!/^[\x21-\x7e]*$/.test(key)) throw new Trouble("The key has characters that no key has.");
    throw new Trouble("The server cannot be reached.");
  }
  if (!answer.ok) throw new Trouble(line(answer, content), answer.status);
  if (text) return content;
  try {
    return JSON.parse(content);
  } catch {
    throw new Trouble("The server's answer cannot be read.", answer.status);
  }
}

function line(answer, content) {
  let problem = {};
  try {
    problem = JSON.parse(content);
  } catch {
    // a proxy's own page, perhaps: the status is all there is
  }
  const what = problem.detail ?? problem.title ?? answer.statusText;
  const after = answer.headers.get("Retry-After");
  const again = after && /^\d+$/.test(after) ? ` Try again in ${after} s.` : "";
  const id = problem.request_id ? `, request ${problem.request_id}` : "";
  return `${isolated(what || "The server refused.")} (${answer.status}${id})${again}`;
}

// A path with ids as its last segments. A browser takes "." and ".." for something else.
export function pathOf(route, ...ids) {
  for (const id of ids) {
    if (id === "." || id === "..") throw new Trouble(`A browser cannot ask for the id "${id}".`);
  }
  return [`/api/${route}`, ...ids.map((id) => encodeURIComponent(id.toWellFormed?.() ?? id))].join("/");
}

// An id or a title inside a sentence: marks that turn the direction of text end with it.
export function isolated(text) {
  return `\u2068${text}\u2069`;
}

// An element with children; strings among them are text, whatever they hold.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toLocaleString("en", { maximumSignificantDigits: digits, useGrouping: Math.abs(value) >= 10_000 });
}

export function signed(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const shown = Math.abs(value) < 0.0005 ? "0" : Math.abs(value).toFixed(Math.abs(value) < 10 ? 3 : 1);
  return shown === "0" ? shown : `${value < 0 ? "−" : "+"}${shown}`;
}

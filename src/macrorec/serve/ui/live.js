// How busy is the server, and how quick? Its metrics, read every two seconds while somebody looks.

import { ask, element, number } from "/ui/api.js";

const EVERY = 2_000; // milliseconds between two readings
const WINDOW = 10_000; // milliseconds that rates and quantiles look back
const POINTS = 60; // of the curve: two minutes
const ROUTES = ["recommend", "rank", "explain", "item-to-item", "feedback", "item"];
const LINE = /^macrorec_(requests_total|request_seconds_bucket|events_total)\{([^}]*)\} (\S+)$/;
const LABEL = /(\w+)="([^"]*)"/g;

const at = (id) => document.getElementById(id);
const histories = new Map(); // a process, by when it started -> its readings of late
const curve = [];
let paused = false;
let timer = 0;
let latest = 0;

// What a page of metrics says: {process, requests, errors, buckets, events}; buckets by route, cumulative.
export function read(text) {
  const found = { process: "", position: null, requests: {}, errors: {}, buckets: {}, events: 0 };
  for (const line of text.split("\n")) {
    if (line.startsWith("process_start_time_seconds ")) found.process = line.split(" ")[1];
    if (line.startsWith("macrorec_log_position ")) found.position = Number(line.split(" ")[1]);
    const match = LINE.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...match[2].matchAll(LABEL)].map((pair) => [pair[1], pair[2]]));
    const value = Number(match[3]);
    if (match[1] === "events_total") {
      if (labels.outcome === "added") found.events += value;
    } else if (match[1] === "requests_total") {
      found.requests[labels.route] = (found.requests[labels.route] ?? 0) + value;
      if (labels.status >= "400") found.errors[labels.route] = (found.errors[labels.route] ?? 0) + value;
    } else {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      (found.buckets[labels.route] ??= []).push([bound, value]);
    }
  }
  return found;
}

// The q-quantile in milliseconds of what came between two readings of cumulative buckets; null for nothing.
export function quantile(now, before, q) {
  const old = new Map(before ?? []);
  const counts = now.map(([bound, value]) => [bound, value - (old.get(bound) ?? 0)]).sort((a, b) => a[0] - b[0]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let low = 0, below = 0;
  for (const [bound, upTo] of counts) {
    if (upTo >= q * all) {
      if (bound === Infinity) return 1e3 * low;
      return 1e3 * (low + ((bound - low) * (q * all - below)) / Math.max(upTo - below, 1e-9));
    }
    [low, below] = [bound, upTo];
  }
  return null;
}

async function poll() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  const mine = (latest += 1);
  try {
    const found = read(await ask("/metrics", { text: true }));
    if (mine === latest) take(found);
  } catch (error) {
    if (mine === latest) at("live-note").textContent = error.message;
    if (error.status === 401 || error.status === 403) return; // until there is another key
  }
  if (mine === latest) timer = setTimeout(poll, EVERY);
}

function take(found) {
  found.time = performance.now();
  let history = histories.get(found.process);
  if (!history) histories.set(found.process, (history = []));
  const last = history.at(-1);
  if (last && found.time - last.time > 3 * EVERY) history.length = 0; // nobody looked for a while
  history.push(found);
  while (history.length > 2 && found.time - history[0].time > WINDOW + EVERY / 2) history.shift();
  at("live-note").textContent = found.position === null ? "" : `Log at ${found.position.toLocaleString("en")}.`;
  if (history.length < 2) return;
  const since = history[0];
  const seconds = (found.time - since.time) / 1e3;
  draw(rate(found, history.at(-2)));
  at("rate").textContent = number(rate(found, since));
  at("events").textContent = number(Math.max(0, found.events - since.events) / seconds);
  const [now, before] = [sum(found.buckets), sum(since.buckets)];
  at("median").textContent = number(quantile(now, before, 0.5), 2);
  at("p99").textContent = number(quantile(now, before, 0.99), 2);
  at("routes").replaceChildren(...ROUTES.filter((route) => found.requests[route]).map((route) => row(route, found, since, seconds)));
}

function rate(now, before) {
  const total = (reading) => ROUTES.reduce((all, route) => all + (reading.requests[route] ?? 0), 0);
  return Math.max(0, total(now) - total(before)) / ((now.time - before.time) / 1e3);
}

// The buckets of all routes that this page shows, together.
function sum(buckets) {
  const all = new Map();
  for (const route of ROUTES) {
    for (const [bound, value] of buckets[route] ?? []) all.set(bound, (all.get(bound) ?? 0) + value);
  }
  return [...all];
}

function row(route, found, since, seconds) {
  const [now, before] = [found.buckets[route] ?? [], since.buckets[route]];
  const cells = [
    number((found.requests[route] - (since.requests[route] ?? 0)) / seconds),
    number(quantile(now, before, 0.5), 2),
    number(quantile(now, before, 0.99), 2),
    number(((found.errors[route] ?? 0) - (since.errors[route] ?? 0)) / seconds),
  ];
  return element("tr", {}, element("th", { scope: "row" }, route), ...cells.map((text) => element("td", {}, text)));
}

function draw(perSecond) {
  curve.push(perSecond);
  if (curve.length > POINTS) curve.shift();
  const top = Math.max(...curve, 1);
  const points = curve.map((value, n) => `${240 - ((curve.length - 1 - n) * 240) / (POINTS - 1)},${46 - (44 * value) / top}`);
  at("spark-line").setAttribute("points", points.join(" "));
  at("spark-top").textContent = `top ${number(top)}/s`;
}

// Begin, or begin again at once, as with another key.
export function start() {
  poll();
}

document.addEventListener("visibilitychange", poll);
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  poll();
});

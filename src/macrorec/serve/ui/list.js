// How are recommendations shown? A list whose rows stay themselves while their places change, and why each is there.

import { ask, element, number, pathOf, signed } from "/ui/api.js";

const STRONGEST = 8; // reasons that are shown at once
const PATHS = {
  model: "by the model's own row of this user",
  fold_in: "by the model, applied to what the user has done until now",
  macro_fallback: "by what is popular in the groups of the user's events",
  popular: "nothing is known of this user yet: what is popular",
};
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const list = document.getElementById("list");
const rows = new Map(); // item id -> its row
let user = null;

// Show an answer. With `compare`, say what has changed against the list before: {entered, left, moved}.
export function show(answer, whose, { compare, behavior, onPost, onTrouble }) {
  const before = new Map([...rows.values()].map((row) => [row.id, row]));
  const places = new Map([...before].map(([id, row]) => [id, row.top.getBoundingClientRect().top]));
  const focused = [...rows.values()].find((row) => row.top.contains(document.activeElement));
  if (whose !== user) {
    for (const row of rows.values()) row.top.remove();
    rows.clear();
    before.clear();
    user = whose;
  }
  const change = { entered: 0, moved: 0, left: [] };
  const wanted = new Set(answer.items.map((one) => one.item_id));
  for (const [id, row] of before) {
    if (wanted.has(id)) continue;
    change.left.push(row.name);
    row.top.remove();
    rows.delete(id);
  }
  answer.items.forEach((one, place) => {
    const old = before.get(one.item_id);
    const row = old ?? newRow(one, onPost, onTrouble);
    rows.set(one.item_id, row);
    const climbed = old ? old.rank - one.rank : 0;
    if (compare && !old) change.entered += 1;
    if (compare && climbed) change.moved += 1;
    fill(row, one, behavior, compare ? (old ? climbed : null) : 0);
    if (list.children[place] !== row.top) list.insertBefore(row.top, list.children[place] ?? null);
    if (row.shown) explain(row, onTrouble);
  });
  if (compare) animate(places);
  keepFocus(focused, answer);
  tellPath(answer);
  return change;
}

// Another behaviour is chosen: the buttons say so.
export function relabel(behavior) {
  for (const row of rows.values()) row.verb.textContent = behavior;
}

export function clear() {
  for (const row of rows.values()) row.top.remove();
  rows.clear();
  user = null;
}

function newRow(one, onPost, onTrouble) {
  const row = { id: one.item_id, name: one.title ?? one.item_id, rank: one.rank, shown: false };
  row.place = element("span", { class: "rank" });
  row.score = element("span", { class: "score" });
  row.change = element("span", { class: "change" });
  row.verb = element("span");
  const title = element("bdi", { class: "title" }, row.name);
  const id = element("bdi", { class: "id quiet" }, one.title === undefined ? "" : one.item_id);
  row.why = element("button", { class: "small", "aria-expanded": "false" }, "Why", of(row.name));
  row.post = element("button", { class: "small post" }, row.verb, of(row.name));
  row.reasons = element("div", { class: "reasons", hidden: "" });
  row.top = element(
    "li",
    {},
    row.place,
    element("div", { class: "what" }, title, " ", id),
    row.change,
    row.score,
    element("div", { class: "buttons" }, row.why, row.post),
    row.reasons,
  );
  row.why.addEventListener("click", () => {
    row.shown = !row.shown;
    row.why.setAttribute("aria-expanded", String(row.shown));
    row.reasons.hidden = !row.shown;
    if (row.shown) explain(row, onTrouble);
  });
  row.post.addEventListener("click", () => onPost(row.id));
  return row;
}

function of(name) {
  return element("span", { class: "sr" }, " ", element("bdi", {}, name));
}

// `climbed`: places since the list before, null for a row that was not there.
function fill(row, one, behavior, climbed) {
  row.rank = one.rank;
  row.place.textContent = one.rank;
  row.score.replaceChildren(element("span", { class: "sr" }, "score "), number(one.score, 4));
  row.verb.textContent = behavior;
  row.top.className = climbed === null ? "entered" : climbed > 0 ? "up" : climbed < 0 ? "down" : "";
  const [sign, words] =
    climbed === null ? ["new", ""] : climbed > 0 ? [`▲ ${climbed}`, "up"] : climbed < 0 ? [`▼ ${-climbed}`, "down"] : ["", ""];
  row.change.className = `change ${climbed === null ? "in" : climbed > 0 ? "up" : climbed < 0 ? "down" : ""}`;
  row.change.replaceChildren(element("span", { class: "sr" }, words), sign);
}

function animate(places) {
  if (calm.matches) return;
  for (const row of rows.values()) {
    const from = places.get(row.id);
    if (from === undefined) {
      row.top.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 350, easing: "ease-out" });
      continue;
    }
    const moved = from - row.top.getBoundingClientRect().top;
    if (moved) {
      const frames = [{ transform: `translateY(${moved}px)` }, { transform: "none" }];
      row.top.animate(frames, { duration: 300, easing: "ease-out" });
    }
  }
}

// Who pressed a button of a row stays on that row, or on the one that has its place now.
function keepFocus(focused, answer) {
  if (!focused || focused.top.contains(document.activeElement)) return;
  const stays = rows.get(focused.id);
  const next = stays ?? rows.get(answer.items[Math.min(focused.rank, answer.items.length) - 1]?.item_id);
  (next?.post ?? document.getElementById("list-title")).focus({ preventScroll: true });
}

function tellPath(answer) {
  document.getElementById("path").textContent = answer.path;
  const skipped = answer.degraded.length ? `; left out for want of time: ${answer.degraded.join(", ")}` : "";
  const known = PATHS[answer.path] ?? "";
  document.getElementById("path-note").textContent = `${known}${skipped} · version ${answer.version}`;
}

async function explain(row, onTrouble) {
  const asked = (row.asked = (row.asked ?? 0) + 1);
  if (!row.reasons.childElementCount) row.reasons.replaceChildren(element("p", { class: "quiet" }, "…"));
  try {
    const told = await ask(pathOf("explain", user, row.id));
    if (asked === row.asked) row.reasons.replaceChildren(...reasons(told));
  } catch (error) {
    if (asked === row.asked) row.reasons.replaceChildren(element("p", { class: "quiet" }, "No reasons."));
    onTrouble(error);
  }
}

function reasons(told) {
  const all = told.reasons ?? [];
  const count = told.users === undefined ? "" : ` ${told.users.toLocaleString("en")} users have it.`;
  if (!all.length) return [element("p", {}, `Nothing of this user speaks for it.${count}`)];
  const parts = [];
  if (told.kind === "ranker") parts.push(element("p", { class: "sum" }, sum(told, all)));
  else if (told.exact) parts.push(element("p", { class: "sum" }, `Score ${number(told.score)}: what the user's items add.${count}`));
  else parts.push(element("p", { class: "sum" }, `The user's items, and how much each is like this one.${count}`));
  parts.push(table(all.slice(0, STRONGEST), told));
  if (all.length > STRONGEST) {
    const more = element("button", { class: "small" }, `All ${all.length}`);
    more.addEventListener("click", () => {
      const whole = table(all, told);
      more.previousElementSibling.replaceWith(whole);
      more.remove();
      whole.tabIndex = -1;
      whole.focus({ preventScroll: true });
    });
    parts.push(more);
  }
  return parts;
}

function sum(told, all) {
  const parts = [`base ${signed(told.base)}`, `user ${signed(told.user)}`, `item ${signed(told.item)}`];
  const carried = all.reduce((total, one) => total + (one.contribution ?? 0), 0);
  return `Score ${signed(told.score)} = ${parts.join(", ")}, neighbours ${signed(carried)}`;
}

function table(some, told) {
  const adds = some.some((one) => Number.isFinite(one.contribution));
  const most = largest(some.filter((one) => weighed(one, told)), "weight");
  const strongest = largest(some, "contribution");
  const head = [told.kind === "ranker" ? "neighbour" : "item of the user", told.kind === "ranker" || adds ? "weight" : "likeness"];
  if (adds) head.push("adds to the score");
  const body = some.map((one) => {
    const from = told.kind === "ranker" ? whence(one) : "";
    const weight = weighed(one, told) ? [bar(one.weight, most, "weight"), number(one.weight)] : ["–"];
    const cells = [
      element("th", { scope: "row" }, element("bdi", {}, one.what ?? ""), from ? element("span", { class: "quiet" }, from) : ""),
      element("td", { "data-of": head[1] }, ...weight),
    ];
    if (adds) cells.push(element("td", { "data-of": "adds" }, bar(one.contribution, strongest, one.contribution < 0 ? "against" : "for"), signed(one.contribution)));
    return element("tr", {}, ...cells);
  });
  const caption = element("caption", { class: "sr" }, "Reasons, the strongest first");
  const top = element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text))));
  return element("table", { class: adds ? "three" : "two" }, caption, top, element("tbody", {}, ...body));
}

// Macro nodes have weights; a recent neighbour stands for itself.
function weighed(one, told) {
  return told.kind !== "ranker" || one.via !== "recent";
}

function whence(one) {
  const count = number(one.count);
  if (one.via === "recent") return one.count > 1 ? `the last ${count} of the ${one.side}` : `of the ${one.side}, of late`;
  return `of the ${one.side}, ${one.via} · ${count} event${one.count === 1 ? "" : "s"}`;
}

function largest(some, name) {
  return Math.max(...some.map((one) => Math.abs(one[name] ?? 0)), 1e-30);
}

function bar(value, most, kind) {
  const inner = element("span", { class: kind });
  inner.style.width = `${Math.min(100, (100 * Math.abs(value ?? 0)) / most)}%`; // by a script, which the policy allows
  return element("span", { class: "bar", "aria-hidden": "true" }, inner);
}

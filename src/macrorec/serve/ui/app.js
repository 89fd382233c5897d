// What can be done here? Look up a user, post an event, and see how long it takes until the list has changed.

import { ask, element, isolated, number, pathOf, theKey, Trouble, useKey } from "/ui/api.js";
import * as list from "/ui/list.js";
import * as live from "/ui/live.js";
import * as map from "/ui/map.js";
import * as more from "/ui/more.js";

const MOST_POSTED = 6; // events that "Posted here" remembers
const at = (id) => document.getElementById(id);
let user = null; // whose list is shown
let latest = 0; // what was asked last; an answer to something older is not shown
let posting = false;

function trouble(error) {
  const box = at("error");
  box.textContent = error instanceof Trouble ? error.message : `The page has made a mistake: ${error.message}`;
  box.hidden = false;
  if (error.status === 401) at("key-box").open = true;
}

function calm() {
  at("error").hidden = true;
  at("error").textContent = "";
}

function behavior() {
  return at("behavior").value;
}

const callbacks = () => ({ behavior: behavior() || "post", onPost: post, onTrouble: trouble });

async function fetched(whose) {
  return ask(`${pathOf("recommend", whose)}?n=${encodeURIComponent(at("n").value)}`);
}

async function lookUp(whose) {
  const mine = (latest += 1);
  at("recommendations").setAttribute("aria-busy", "true");
  try {
    const began = performance.now();
    const answer = await fetched(whose);
    if (mine !== latest) return;
    calm();
    user = whose;
    list.show(answer, whose, { compare: false, ...callbacks() });
    at("left").hidden = true;
    at("answer").hidden = at("event").hidden = false;
    at("hint").hidden = true;
    document.title = `${whose} · macrorec`;
    map.mark(answer.items.map((one) => one.item_id));
    const items = answer.items.length === 1 ? "1 item" : `${answer.items.length} items`;
    at("status").textContent = `${items} for ${isolated(whose)}, in ${ms(performance.now() - began)}.`;
  } catch (error) {
    if (mine === latest) trouble(error);
  } finally {
    if (mine === latest) at("recommendations").removeAttribute("aria-busy");
  }
}

async function post(item) {
  if (posting || user === null) return;
  posting = true;
  const mine = (latest += 1);
  const whose = user;
  at("recommendations").setAttribute("aria-busy", "true");
  try {
    const event = { user_id: whose, item_id: item };
    if (behavior()) event.behavior = behavior();
    const began = performance.now();
    const stored = await ask("/api/feedback", { body: [event], headers: { "Idempotency-Key": once() } });
    const durable = performance.now();
    remember(event, stored, durable - began);
    const answer = await fetched(whose);
    if (mine !== latest) return;
    const change = list.show(answer, whose, { compare: true, ...callbacks() });
    const done = performance.now();
    calm();
    map.mark(answer.items.map((one) => one.item_id));
    tellChange(change, done - began, durable - began);
  } catch (error) {
    trouble(error);
  } finally {
    posting = false;
    if (mine === latest) at("recommendations").removeAttribute("aria-busy");
  }
}

function tellChange(change, whole, stored) {
  const told = [];
  if (change.entered) told.push(`${change.entered} entered`);
  if (change.left.length) told.push(`${change.left.length} left`);
  if (change.moved) told.push(`${change.moved} moved`);
  const what = told.length ? told.join(", ") : "the same items in the same order";
  at("status").replaceChildren(
    "New list ",
    element("strong", { id: "whole" }, ms(whole)),
    ` after the post (durable after ${ms(stored)}): ${what}.`,
  );
  at("left").hidden = !change.left.length;
  const names = change.left.flatMap((name, n) => [n ? ", " : "", element("bdi", {}, name)]);
  at("left").replaceChildren("Left the list: ", ...names);
}

function remember(event, stored, milliseconds) {
  const box = at("posted");
  if (!box.dataset.any) box.replaceChildren();
  box.dataset.any = "yes";
  const known = stored.duplicates ? " · was known" : ` · no. ${stored.position.toLocaleString("en")}`;
  const what = [element("bdi", {}, event.user_id), ` · ${event.behavior ?? "event"} · `, element("bdi", {}, event.item_id)];
  box.prepend(element("li", {}, ...what, ` · ${ms(milliseconds)}${known}`));
  while (box.children.length > MOST_POSTED) box.lastElementChild.remove();
}

function ms(milliseconds) {
  return `${number(milliseconds, milliseconds < 10 ? 2 : 3)} ms`;
}

// A key under which the server counts the request once. `randomUUID` exists over TLS and on localhost alone.
function once() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function describe() {
  try {
    const model = await ask("/api/model");
    const names = [model.retriever, model.ranker].filter(Boolean).join(" + ");
    const sizes = model.users === undefined ? "" : ` · ${model.users.toLocaleString("en")} users, ${model.items.toLocaleString("en")} items`;
    at("model").textContent = `${names} · version ${model.version}${sizes}`;
    const chosen = behavior();
    const options = [...(model.behaviors ?? [])].reverse().map((one) => {
      const role = one.role && one.role !== "auxiliary" ? ` (${one.role})` : "";
      return element("option", { value: one.name }, `${one.name}${role}`);
    });
    at("behavior").replaceChildren(...options);
    at("behavior").parentElement.hidden = !options.length;
    if (options.some((one) => one.value === chosen)) at("behavior").value = chosen;
    list.relabel(behavior() || "post");
    return true;
  } catch (error) {
    trouble(error);
    return false;
  }
}

// The user is named behind the #, which a browser does not send.
function named() {
  const found = /^#user=(.*)$/.exec(location.hash);
  try {
    return found ? decodeURIComponent(found[1]) : null;
  } catch {
    return null;
  }
}

function follow() {
  const whose = named();
  if (whose === null || whose === "") return;
  at("user").value = whose;
  lookUp(whose);
}

at("look-up").addEventListener("submit", (event) => {
  event.preventDefault();
  const whose = at("user").value;
  const hash = `#user=${encodeURIComponent(whose.toWellFormed?.() ?? whose)}`;
  if (location.hash === hash) lookUp(whose);
  else location.hash = hash;
});
at("n").addEventListener("change", () => user !== null && lookUp(user));
at("event").addEventListener("submit", (event) => {
  event.preventDefault();
  post(at("item").value);
});
at("behavior").addEventListener("change", () => list.relabel(behavior()));
at("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(at("key").value);
  calm();
  if (!(await describe())) return;
  at("key-box").open = false;
  at("key-box").firstElementChild.focus();
  live.start();
  if (user !== null) lookUp(user);
  else follow();
});
at("draw").addEventListener("click", () => {
  map.draw({ onPick: (item) => (at("item").value = item), onTrouble: trouble });
});
more.start({ onForgotten: (whose) => whose === user && lookUp(whose), onTrouble: trouble, onCalm: calm });
addEventListener("hashchange", follow);

at("key").value = theKey();
describe();
follow();
live.start();

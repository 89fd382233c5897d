// What else can be asked of the service? Items like an item, an item that is new, and a user who is to be forgotten.

import { ask, element, isolated, number, pathOf } from "/ui/api.js";

const MOST_ALIKE = 10;
const at = (id) => document.getElementById(id);

// `onForgotten(user)`, `onTrouble(error)`, and `onCalm()` when something has gone well again.
export function start({ onForgotten, onTrouble, onCalm }) {
  const on = (name, work) => {
    const form = at(name);
    let busy = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (busy) return;
      busy = true;
      form.setAttribute("aria-busy", "true");
      try {
        at("told").replaceChildren(...(await work()));
        onCalm();
      } catch (error) {
        onTrouble(error);
      } finally {
        busy = false;
        form.removeAttribute("aria-busy");
      }
    });
  };
  on("alike-form", alike);
  on("announce-form", announce);
  on("forget-form", async () => {
    const whose = at("forget-id").value;
    const told = await forget(whose);
    onForgotten(whose);
    return told;
  });
}

async function alike() {
  const item = at("alike-id").value;
  const answer = await ask(`${pathOf("item-to-item", item)}?n=${MOST_ALIKE}`);
  const rows = answer.items.map((one) =>
    element(
      "li",
      {},
      element("span", {}, element("bdi", { class: "title" }, one.title ?? one.item_id), " ", element("bdi", { class: "quiet" }, one.title ? one.item_id : "")),
      element("span", { class: "quiet" }, number(one.score)),
    ),
  );
  at("alike").replaceChildren(...rows);
  return [`${rows.length} like ${isolated(item)}.`];
}

async function announce() {
  const body = { item_id: at("announce-id").value };
  for (const name of ["category", "title"]) {
    const given = at(`announce-${name}`).value;
    if (given) body[name] = given;
  }
  const stored = await ask("/api/item", { body });
  return [`${isolated(body.item_id)} is announced, no. ${stored.position.toLocaleString("en")} of the log.`];
}

async function forget(whose) {
  const gone = await ask(pathOf("user", whose), { method: "DELETE" });
  at("forget-sure").checked = false;
  const events = gone.events === 1 ? "1 event" : `${gone.events.toLocaleString("en")} events`;
  return [`${isolated(whose)} is forgotten: ${events} removed. What the model has learned stays until its next fit.`];
}

// Where do items lie? A map in colours of clusters, drawn by plotly, which is fetched when somebody asks for the map.
// No text of the server's goes to plotly: it reads mark-up in labels. Names stand beside the map, as text.

import { ask, element } from "/ui/api.js";

const SCRIPT = "/ui/plotly.js";
const COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#ff9da7", "#9c755f"];
const OTHERS = "#9aa0a6";
const dark = matchMedia("(prefers-color-scheme: dark)");
const coarse = matchMedia("(pointer: coarse)");

const at = (id) => document.getElementById(id);
let drawn = null; // {plot, layers, items}
let listed = new Set();

export async function draw({ onPick, onTrouble }) {
  const button = at("draw");
  button.disabled = true;
  try {
    const [told] = await Promise.all([ask("/api/map?n=2000"), script()]);
    if (!told.items.length) {
      at("map-note").textContent = "The model has no items to draw.";
      return;
    }
    at("map-intro").hidden = true;
    at("map").hidden = at("zoom").hidden = false;
    await plot(told, onPick);
    at("zoom-all").focus({ preventScroll: true });
  } catch (error) {
    onTrouble(error);
  } finally {
    button.disabled = false;
  }
}

// Ring these items on the map.
export function mark(items) {
  listed = new Set(items);
  if (drawn) Plotly.restyle(drawn.plot, ringed(), [drawn.layers.length]);
}

function script() {
  if (window.Plotly) return Promise.resolve();
  return new Promise((done, failed) => {
    const made = element("script", { src: SCRIPT });
    made.addEventListener("load", done);
    made.addEventListener("error", () => {
      made.remove();
      failed(new Error("The map's script cannot be loaded: the server needs plotly, as in pip install 'macrorec[serve]'."));
    });
    document.head.append(made);
  });
}

async function plot(told, onPick) {
  const layers = layersOf(told);
  const most = Math.max(...told.items.map((item) => item.popularity ?? 0), 1);
  const traces = layers.map((layer) => ({
    ...points(layer.items),
    marker: {
      color: layer.colour,
      size: layer.items.map((item) => 5 + 9 * Math.sqrt((item.popularity ?? 0) / most)),
      opacity: 0.8,
      line: { width: 0 },
    },
  }));
  drawn = { plot: at("map"), layers, items: told.items };
  const rings = { ...points([]), marker: { symbol: "circle-open", size: 18, color: ink(), line: { width: 2.5 } }, hoverinfo: "skip" };
  const axis = { visible: false, fixedrange: coarse.matches, range: [-1.08, 1.08] };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    showlegend: false,
    hovermode: "closest",
    dragmode: coarse.matches ? false : "pan", // a finger that drags scrolls the page
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...axis },
    yaxis: { ...axis },
  };
  await Plotly.newPlot(drawn.plot, [...traces, rings], layout, { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false });
  drawn.plot.on("plotly_hover", (event) => tell(itemAt(event)));
  drawn.plot.on("plotly_click", (event) => {
    tell(itemAt(event));
    onPick(itemAt(event).item_id);
  });
  mark(listed);
  legend();
  at("map-note").textContent = `${told.items.length.toLocaleString("en")} items; rings are those of the list. A click on one takes it as the event's item.`;
}

function points(items) {
  const [x, y] = [items.map((item) => item.x), items.map((item) => item.y)];
  return { type: "scatter", mode: "markers", hoverinfo: "none", x, y };
}

function itemAt(event) {
  return drawn.layers[event.points[0].curveNumber].items[event.points[0].pointNumber];
}

// The largest clusters with a colour each, and all others together.
function layersOf(told) {
  const names = new Map((told.clusters ?? []).map((one) => [one.cluster, one.name]));
  const members = new Map();
  for (const item of told.items) {
    if (!members.has(item.cluster)) members.set(item.cluster, []);
    members.get(item.cluster).push(item);
  }
  const bySize = [...members].sort((a, b) => b[1].length - a[1].length || a[0] - b[0]).filter(([cluster]) => cluster >= 0);
  const layers = bySize.slice(0, COLOURS.length).map(([cluster, items], n) => ({
    name: nameOf(names.get(cluster), cluster),
    colour: COLOURS[n],
    items,
  }));
  const shown = new Set(bySize.slice(0, COLOURS.length).map(([cluster]) => cluster));
  const rest = told.items.filter((item) => !shown.has(item.cluster));
  return rest.length ? [{ name: "others", colour: OTHERS, items: rest }, ...layers] : layers;
}

function nameOf(name, cluster) {
  return name === undefined || name === String(cluster) ? `cluster ${cluster}` : name;
}

function tell(item) {
  const users = item.popularity === undefined ? "" : ` · ${item.popularity.toLocaleString("en")} users`;
  at("map-note").replaceChildren(
    element("bdi", { class: "title" }, item.title ?? item.item_id),
    " ",
    element("bdi", { class: "quiet" }, item.title ? item.item_id : ""),
    users,
  );
}

function ringed() {
  const items = drawn.items.filter((item) => listed.has(item.item_id));
  return { x: [items.map((item) => item.x)], y: [items.map((item) => item.y)] };
}

function ink() {
  return getComputedStyle(document.body).color;
}

function legend() {
  const buttons = drawn.layers.map((layer, n) => {
    const dot = element("span", { class: "dot", "aria-hidden": "true" });
    dot.style.background = layer.colour;
    const count = element("span", { class: "quiet" }, ` ${layer.items.length.toLocaleString("en")}`);
    const button = element("button", { class: "small", "aria-pressed": "true" }, dot, element("bdi", {}, layer.name), count);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      Plotly.restyle(drawn.plot, { visible: on }, [n]);
    });
    return button;
  });
  if (drawn.layers[0].colour === OTHERS) buttons.push(buttons.shift()); // drawn below the rest, told after it
  at("legend").replaceChildren(...buttons);
}

function zoom(factor) {
  const change = {};
  for (const axis of ["xaxis", "yaxis"]) {
    const [low, high] = drawn.plot.layout[axis].range;
    const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
    change[`${axis}.range`] = [middle - half, middle + half];
  }
  Plotly.relayout(drawn.plot, change);
}

at("zoom-in").addEventListener("click", () => zoom(1 / 1.5));
at("zoom-out").addEventListener("click", () => zoom(1.5));
at("zoom-all").addEventListener("click", () => Plotly.relayout(drawn.plot, { "xaxis.range": [-1.08, 1.08], "yaxis.range": [-1.08, 1.08] }));
dark.addEventListener("change", () => {
  if (drawn) Plotly.restyle(drawn.plot, { "marker.color": ink() }, [drawn.layers.length]);
});

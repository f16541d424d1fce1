// The page of `ptarmigan explore`: a card for each run, kept up to date by server-sent events.
"use strict";

const find = (role, inside = document) => inside.querySelector(`[data-role="${role}"]`);
const show = (inside, name, visible) => inside.querySelectorAll(`[data-if="${name}"]`).forEach((e) => { e.hidden = !visible; });
const whole = (number) => Math.round(number).toLocaleString("en");
const runs = new Map(); // identifier -> { state, card }
let events = null;

function make(kind, text, settings = {}) {
  return Object.assign(document.createElement(kind), { textContent: text, ...settings });
}

function duration(seconds) {
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s}s`;
  return s < 3600 ? `${Math.floor(s / 60)}m${two(s % 60)}s` : `${Math.floor(s / 3600)}h${two(Math.floor((s % 3600) / 60))}m`;
}

const of = ({ images, clock }) => `${whole(images)} images, ${duration(clock)}`;
const score = ({ kid, error }) => (kid == null ? "" : `; KID ${kid.toPrecision(3)}${error == null ? "" : ` ± ${(2 * error).toPrecision(2)} (2 standard errors)`}`);
const gridOf = (state, grid) => `runs/${state.id}/grids/${grid.images}.png`;

// An image is asked for again only where its address changes.
function paint(img, address, words) {
  if (img.getAttribute("src") !== address) img.src = address;
  img.alt = words;
}

// ---- the card of a run

function newCard(state) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  const film = find("film", card), charts = find("charts", card);
  film.id = `film-${state.id}`;
  find("film-label", card).htmlFor = film.id;
  film.addEventListener("input", () => showGrid(state.id));
  charts.addEventListener("toggle", () => showCharts(state.id));
  card.querySelector('[data-do="nearest"]').addEventListener("click", () => openNearest(state.id));
  for (const role of ["report", "play", "copies"]) {
    find(role, card).href = `runs/${state.id}/${{ report: "report", play: "play", copies: "copies.png" }[role]}`;
  }
  find("cards").append(card);
  return card;
}

function showRun(state) {
  const before = runs.get(state.id), card = before?.card ?? newCard(state);
  const film = find("film", card), grids = state.grids ?? [];
  const newest = !before || Number(film.value) === Number(film.max);
  runs.set(state.id, { state, card, version: (before?.version ?? 0) + 1 });
  find("name", card).textContent = state.name;
  const verdict = find("verdict", card);
  verdict.textContent = state.fault ?? state.verdict;
  verdict.className = state.fault ? "error" : state.severity || (state.verdict === "healthy" ? "good" : "");
  find("state", card).textContent = state.fault ? "" : `${state.state}; ${of(state)}`;
  find("facts", card).textContent = state.facts ?? "";
  film.max = Math.max(0, grids.length - 1);
  if (newest) film.value = film.max;
  for (const name of ["report", "charts"]) find(name, card).hidden = Boolean(state.fault);
  show(card, "grids", grids.length > 0);
  show(card, "film", grids.length > 1);
  show(card, "generator", state.generator);
  show(card, "private", state.private && state.generator);
  show(card, "copies", state.copies);
  find("scores", card).replaceChildren(...(state.scores ?? []).map((text) => make("p", text, { className: "fact" })));
  showGrid(state.id);
  showCharts(state.id);
}

function showGrid(id) {
  const { state, card } = runs.get(id), film = find("film", card), grid = state.grids?.[film.value];
  if (!grid) return;
  const text = `after ${of(grid)}${score(grid)}`;
  paint(find("grid", card), gridOf(state, grid), `Grid of samples of ${state.name} ${text}`);
  find("caption", card).textContent = `Samples ${text}`;
  find("film-value", card).textContent = `${Number(film.value) + 1} of ${state.grids.length}`;
  film.setAttribute("aria-valuetext", of(grid));
}

function showCharts(id) {
  const { state, card, version } = runs.get(id);
  if (!find("charts", card).open || state.fault) return;
  paint(find("chart", card), `runs/${id}/charts.svg?version=${version}`, `Losses and scores of ${state.name} over the images seen; the report has their values`);
}

// ---- runs side by side

const unit = document.getElementById("unit"), place = document.getElementById("place");
const compared = new Set();

function showChoices() {
  const chosen = find("chosen");
  for (const [id, { state }] of runs) {
    if (!state.grids?.length || document.getElementById(`compare-${id}`)) continue;
    const label = document.createElement("label"), box = make("input", "", { type: "checkbox", id: `compare-${id}` });
    box.checked = compared.size < 4;
    if (box.checked) compared.add(id);
    box.addEventListener("change", () => {
      if (box.checked) compared.add(id);
      else compared.delete(id);
      showColumns();
    });
    label.append(box, state.name);
    chosen.append(label);
  }
  find("compare").hidden = chosen.children.length < 2;
  showColumns();
}

// The places of the slider are those of all grids of the chosen runs.
function places() {
  const grids = [...compared].flatMap((id) => runs.get(id).state.grids);
  return [...new Set(grids.map((grid) => grid[unit.value]))].sort((a, b) => a - b);
}

function showColumns() {
  const at = places(), last = Number(place.value) === Number(place.max);
  place.max = Math.max(0, at.length - 1);
  if (last) place.value = place.max;
  const limit = at[place.value] ?? 0, text = unit.value === "images" ? `${whole(limit)} images` : duration(limit);
  document.querySelector('output[for="place"]').textContent = text;
  place.setAttribute("aria-valuetext", text);
  const columns = find("columns"), wanted = [...runs.keys()].filter((id) => compared.has(id));
  if ([...columns.children].map((column) => column.dataset.run).join() !== wanted.join()) {
    columns.replaceChildren(...wanted.map(newColumn));
  }
  for (const column of columns.children) {
    const { state } = runs.get(column.dataset.run);
    const grid = state.grids.findLast((one) => one[unit.value] <= limit), words = grid ? `after ${of(grid)}${score(grid)}` : "";
    column.querySelector("img").hidden = !grid;
    if (grid) paint(column.querySelector("img"), gridOf(state, grid), `Grid of samples of ${state.name} ${words}`);
    column.querySelector("figcaption").textContent = grid ? `Samples ${words}` : "No grid of samples by then";
    column.querySelector("h3").textContent = state.name;
  }
}

function newColumn(id) {
  const column = document.createElement("figure");
  column.dataset.run = id;
  column.append(document.createElement("h3"), document.createElement("img"), document.createElement("figcaption"));
  return column;
}

unit.addEventListener("change", () => {
  place.value = place.max = 0;
  showColumns();
});
place.addEventListener("input", showColumns);

// ---- nearest training images

const panel = find("nearest"), names = document.getElementById("class");
let asked = 0, nearestOf = null;

function openNearest(id) {
  const { state } = runs.get(id);
  nearestOf = id;
  names.replaceChildren(...state.classes.map((name) => make("option", name, { value: name })));
  show(panel, "classes", state.classes.length > 0);
  document.getElementById("nearest-title").textContent = `Nearest training images: ${state.name}`;
  panel.hidden = false;
  document.getElementById("nearest-title").focus();
  findNearest();
}

async function findNearest() {
  const turn = ++asked, found = find("found"), query = new URLSearchParams();
  for (const id of ["seed", "image"]) query.set(id, document.getElementById(id).value.trim());
  if (names.options.length) query.set("class", names.value);
  found.textContent = "Looking ...";
  find("neighbours").replaceChildren();
  for (;;) {
    const reply = await fetch(`runs/${nearestOf}/nearest?${query}`).then((answer) => answer.json(), () => ({ text: "The server does not answer." }));
    if (turn !== asked) return;
    if (!reply.waiting) return showNearest(reply);
    found.textContent = `Preparing: ${reply.waiting}`;
    await new Promise((resolve) => setTimeout(resolve, 700));
  }
}

function showNearest({ text, image, nearest, of: count, training }) {
  find("found").textContent = text ?? `The first picture is generated; the others are the nearest of ${whole(count)} training images${count < training ? ` (of ${whole(training)})` : ""}, with the distance of their features.`;
  if (text) return;
  find("neighbours").replaceChildren(
    picture(image, "generated", "The generated image"),
    ...nearest.map((one, i) => picture(one.png, `${one.class}, ${one.distance}`, `Training image ${i + 1}: ${one.class}`)),
  );
}

function picture(png, caption, words) {
  const figure = document.createElement("figure");
  figure.append(make("img", "", { src: `data:image/png;base64,${png}`, alt: words }), make("figcaption", caption));
  return figure;
}

panel.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  findNearest();
});
panel.querySelector('[data-do="next"]').addEventListener("click", () => {
  const image = document.getElementById("image");
  image.value = String((Number(image.value) || 0) + 1);
  findNearest();
});
panel.querySelector('[data-do="close"]').addEventListener("click", () => {
  asked++;
  panel.hidden = true;
  runs.get(nearestOf).card.querySelector('[data-do="nearest"]').focus();
});

// ---- what is new

function connect() {
  const connection = find("connection");
  events?.close();
  events = new EventSource("events");
  events.addEventListener("open", () => { connection.textContent = "Live"; });
  events.addEventListener("error", () => {
    connection.textContent = "The server does not answer: it was ended, or the connection is lost.";
  });
  events.addEventListener("message", ({ data }) => {
    showRun(JSON.parse(data));
    showChoices();
  });
}

document.addEventListener("visibilitychange", () => { // a browser opens few connections at once, so a hidden page has none
  if (document.hidden) events?.close();
  else connect();
});
connect();

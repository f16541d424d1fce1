// The controls of the page.
"use strict";

const IMAGES = 16, GAP = 2; // of a set of pictures; pixels between them where all are saved as one
const MOST_BUTTONS = 24; // classes; more are a list
const LAST_SEED = 2n ** 63n - 1n;
const WALK_SECONDS = 3;
const PIXELS_AT_ONCE = IMAGES * 64 * 64; // larger pictures are drawn one after another, and the page stays awake

const find = (selector) => document.querySelector(selector);
const show = (name, visible) => document.querySelectorAll(`[data-if="${name}"]`).forEach((e) => { e.hidden = !visible; });
const model = JSON.parse(find("#model").textContent);
const AT_ONCE = Math.min(IMAGES, Math.max(1, Math.floor(PIXELS_AT_ONCE / (model.height * model.width))));
const tiles = [], chosen = { points: [], pixels: [] };
const state = {
  label: 0, other: -1, share: 0.5, seed: 0n, variety: 1, moves: model.directions.map(() => 0), tile: 0, from: null,
  walked: 1,
};
let network = null, drawing = 0, playing = 0, spoken = 0;

// ---- what is drawn

function embedding(label) {
  const size = model.class_dim;
  return network.embedding ? network.embedding.subarray(label * size, (label + 1) * size) : new Float32Array(0);
}

const between = (a, b, share) => a.map((value, i) => value + share * (b[i] - value));

// Along the sphere for normal latents, whose length hardly varies; along the line for uniform ones.
function latentBetween(a, b, share) {
  const length = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
  const cosine = a.reduce((sum, value, i) => sum + value * b[i], 0) / (length(a) * length(b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (model.latent !== "normal" || !(Math.sin(angle) > 1e-4)) return between(a, b, share);
  const [left, right] = [Math.sin((1 - share) * angle), Math.sin(share * angle)];
  return a.map((value, i) => (left * value + right * b[i]) / Math.sin(angle));
}

function point(image) {
  const { label, other, share, seed, variety } = state;
  const z = latents(seed, image, model.latent_dim, model.latent).map((value, i) => {
    const moved = model.directions.reduce((sum, { step }, way) => sum + state.moves[way] * step[i], variety * value);
    return model.latent === "normal" ? moved : Math.min(1, Math.max(-1, moved));
  });
  const of = other < 0 ? embedding(label) : between(embedding(label), embedding(other), share);
  return { z, of, name: `${described()}set ${seed}, picture ${image}` };
}

function described() {
  if (!model.classes.length) return "";
  const name = model.classes[state.label].name;
  const mixed = state.other < 0 ? name : `${name} with ${percent(state.share)} ${model.classes[state.other].name}`;
  return `${mixed}, `;
}

const percent = (share) => `${Math.round(100 * share)} %`;

async function draw() {
  const turn = ++drawing;
  const begun = performance.now();
  const points = Array.from({ length: IMAGES }, (_, image) => point(image));
  const pixels = [];
  let spent = 0;
  for (let at = 0; at < IMAGES; at += AT_ONCE) {
    if (at) {
      say(`Drawing: ${at} of ${IMAGES} pictures so far.`);
      await new Promise((resolve) => setTimeout(resolve));
      if (turn !== drawing) return;
    }
    const start = at ? performance.now() : begun;
    network.draw(points.slice(at, at + AT_ONCE)).forEach((drawn, i) => {
      pixels.push(drawn);
      paint(tiles[at + i].firstChild, drawn);
      tiles[at + i].setAttribute("aria-label", points[at + i].name);
    });
    spent += performance.now() - start;
  }
  Object.assign(chosen, { points, pixels });
  say(`Drew ${IMAGES} pictures in ${Math.max(1, Math.round(spent))} ms.`);
  choose(state.tile);
}

function say(text) {
  find('[role="status"]').textContent = text;
  clearTimeout(spoken);
  spoken = setTimeout(() => say(""), 5000);
}

function paint(canvas, pixels) {
  canvas.getContext("2d").putImageData(new ImageData(pixels, model.width, model.height), 0, 0);
}

// Shows a picture of the set, or a step of the walk to it.
function choose(tile) {
  state.tile = tile;
  tiles.forEach((button, i) => {
    button.setAttribute("aria-pressed", i === tile);
    button.tabIndex = i === tile ? 0 : -1;
  });
  if (!chosen.points.length) return;
  const to = chosen.points[tile], { from, walked } = state;
  const walking = from !== null;
  chosen.large = walking
    ? network.draw([{ z: latentBetween(from.z, to.z, walked), of: between(from.of, to.of, walked) }])[0]
    : chosen.pixels[tile];
  const text = walking ? `${percent(walked)} of the way from ${from.name} to ${to.name}` : to.name;
  const large = find('[data-role="large"]');
  paint(large, chosen.large);
  large.setAttribute("aria-label", text);
  find('[data-role="caption"]').textContent = text;
  find('output[for="walked"]').textContent = percent(walked);
  find("#walked").value = 100 * walked;
  show("walk", walking);
  show("no-walk", !walking);
  showCommand(tile, walking);
}

function showCommand(tile, walking) {
  const plain = state.other < 0 && !walking;
  show("command", plain);
  show("no-command", !plain);
  const of = model.classes[state.label], folder = `set-${state.seed}`;
  const option = (of ? ` ${of.option}` : "") + (state.variety < 1 ? ` --truncation ${state.variety}` : "")
    + moves("option").map((move) => ` ${move}`).join("");
  find('[data-role="command"]').textContent =
    `ptarmigan sample ${model.argument}${option} -n ${IMAGES} --seed ${state.seed} --out ${folder}`;
  const file = `${folder}/${of ? of.folder : "images"}/${String(tile).padStart(6, "0")}.png`;
  find('[data-role="file"]').textContent = `This picture is then the file ${file}.`;
}

// The directions along which the pictures are moved, each with its amount, as an option or as the text of a PNG.
function moves(form) {
  return model.directions.map((way, i) => `${way[form]}=${state.moves[i]}`).filter((_, i) => state.moves[i]);
}

// What the text of a PNG says, so that `ptarmigan sample --like` can draw the picture again.
function drawingText(first, n) {
  const { label, seed, variety } = state;
  if (state.other >= 0 || state.from !== null) return {};
  const moved = moves("move").map((move) => move.split("/").pop()).join(" ");
  return { labels: label, seed, n, first, truncation: variety, ...(moved && { moves: moved }) };
}

// ---- files

const CHECK = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function chunk(type, content) {
  const bytes = new Uint8Array(12 + content.length), view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(content, 8);
  const sum = bytes.subarray(4, -4).reduce((crc, byte) => CHECK[(crc ^ byte) & 255] ^ (crc >>> 8), -1);
  view.setUint32(8 + content.length, ~sum);
  return bytes;
}

// The parts of a PNG of RGBA pixels, with as many channels as the images have.  A canvas would not keep colours behind
// transparency.
async function png(pixels, width, height, texts) {
  const channels = model.channels, line = 1 + width * channels;
  const rows = new Uint8Array(height * line);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = 4 * (y * width + x);
      rows.set(pixels.subarray(from, from + channels), y * line + 1 + x * channels);
    }
  }
  const packed = new CompressionStream("deflate"), writer = packed.writable.getWriter();
  writer.write(rows);
  writer.close();
  const head = new Uint8Array(13), view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, { 1: 0, 3: 2, 4: 6 }[channels]], 8);
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const words = Object.entries(texts).map(([key, text]) => chunk("iTXt", new TextEncoder().encode(`${key}\0\0\0\0\0${text}`)));
  const data = chunk("IDAT", new Uint8Array(await new Response(packed.readable).arrayBuffer()));
  return [signature, chunk("IHDR", head), ...words, data, chunk("IEND", new Uint8Array())];
}

async function save(pixels, width, height, picture, text) {
  const link = document.createElement("a");
  const parts = await png(pixels, width, height, { picture, generator: model.sha256, ...text });
  link.href = URL.createObjectURL(new Blob(parts, { type: "image/png" }));
  link.download = `${picture.replace(/[^\p{L}\p{N}]+/gu, "-")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  say(`Saved ${link.download}.`);
}

// The whole set as `ptarmigan sample` writes it, without names.
function sheet() {
  const side = Math.sqrt(IMAGES), [height, width] = [model.height, model.width].map((n) => side * (n + GAP) + GAP);
  const pixels = new Uint8ClampedArray(4 * height * width).fill(model.channels === 4 ? 0 : 255);
  chosen.pixels.forEach((image, i) => {
    const top = Math.floor(i / side) * (model.height + GAP) + GAP, left = (i % side) * (model.width + GAP) + GAP;
    for (let y = 0; y < model.height; y++) {
      const row = image.subarray(4 * y * model.width, 4 * (y + 1) * model.width);
      pixels.set(row, 4 * ((top + y) * width + left));
    }
  });
  return [pixels, width, height];
}

async function copy() {
  const command = find('[data-role="command"]');
  try {
    await navigator.clipboard.writeText(command.textContent);
    say("The command is copied.");
  } catch {
    getSelection().selectAllChildren(command);
    say("The command is selected: copy it by the menu of your browser.");
  }
}

function play() {
  if (playing) return stop();
  const begun = performance.now() - 1000 * WALK_SECONDS * (state.walked < 1 ? state.walked : 0);
  find('[data-do="play"]').textContent = "Pause";
  const step = (now) => {
    state.walked = Math.min(1, Math.max(0, (now - begun) / 1000 / WALK_SECONDS));
    playing = state.walked < 1 ? requestAnimationFrame(step) : 0;
    choose(state.tile);
    if (!playing) stop();
  };
  playing = requestAnimationFrame(step);
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  find('[data-do="play"]').textContent = "Play";
}

// ---- controls

let due = false;

function redraw() { // once for all changes until the next frame
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    stop();
    draw();
  });
}

function setSeed(text) {
  const seed = /^\d{1,19}$/.test(text.trim()) ? BigInt(text.trim()) : -1n;
  const good = seed >= 0n && seed <= LAST_SEED;
  find("#seed-fault").textContent = good ? "" : `Write a whole number from 0 to ${LAST_SEED}.`;
  find("#seed").setAttribute("aria-invalid", !good);
  if (!good) return;
  state.seed = seed;
  redraw();
}

const actions = {
  next: () => {
    const seed = state.seed < LAST_SEED ? state.seed + 1n : 0n;
    find("#seed").value = String(seed);
    setSeed(String(seed));
  },
  save: () =>
    save(chosen.large, model.width, model.height, find('[data-role="caption"]').textContent, drawingText(state.tile, 1)),
  "save-all": () => save(...sheet(), `${described()}set ${state.seed}`, drawingText(0, IMAGES)),
  from: () => {
    stop();
    state.from = chosen.points[state.tile];
    state.walked = 1;
    choose(state.tile);
    say("The walk begins at this picture. Choose another one, then press Play.");
  },
  play,
  "stop-walk": () => {
    stop();
    state.from = null;
    choose(state.tile);
  },
  copy,
  unmoved: () => {
    model.directions.forEach((_, way) => {
      find(`#move-${way}`).value = 0;
      find(`#move-${way}`).dispatchEvent(new Event("input"));
    });
  },
};

function slider(id, key, then) {
  const input = find(`#${id}`), output = find(`output[for="${id}"]`);
  const change = () => {
    state[key] = Number(input.value) / 100;
    output.textContent = percent(state[key]);
    then();
  };
  output.textContent = percent(state[key]);
  input.addEventListener("input", change);
}

// A slider from -3 to 3 standard deviations for each direction.
function directionControls() {
  model.directions.forEach(({ name }, way) => {
    const line = document.createElement("div"), id = `move-${way}`;
    const label = Object.assign(document.createElement("label"), { htmlFor: id, textContent: name });
    const output = document.createElement("output");
    const range = { id, type: "range", min: -3, max: 3, step: 0.1, value: 0 };
    const input = Object.assign(document.createElement("input"), range);
    const change = () => {
      state.moves[way] = Number(input.value);
      output.textContent = input.value;
    };
    change();
    output.htmlFor = id;
    input.addEventListener("input", () => {
      change();
      redraw();
    });
    line.className = "slider";
    line.append(label, output, input);
    find('[data-role="directions"]').append(line);
  });
  show("directions", model.directions.length > 0);
}

function option(value, text) {
  const item = document.createElement("option");
  item.value = value;
  item.textContent = text;
  return item;
}

function classControls() {
  const place = find('[data-role="classes"]'), names = model.classes.map(({ name }) => name);
  const set = (label) => {
    state.label = label;
    place.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", i === label));
    redraw();
  };
  if (names.length > MOST_BUTTONS) {
    const list = document.createElement("select");
    list.setAttribute("aria-labelledby", "class-title");
    list.append(...names.map((name, label) => option(label, name)));
    list.addEventListener("change", () => set(Number(list.value)));
    place.append(list);
  } else {
    place.append(...names.map((name, label) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => set(label));
      return button;
    }));
  }
  const other = find("#other");
  other.append(option(-1, "No mix"), ...names.map((name, label) => option(label, name)));
  other.addEventListener("change", () => {
    state.other = Number(other.value);
    show("mixing", state.other >= 0);
    redraw();
  });
  set(0);
}

function begin() {
  const text = atob(find("#weights").textContent);
  network = new Network(model, Uint8Array.from(text, (c) => c.charCodeAt(0)), AT_ONCE);
  const grid = find(".grid");
  for (let tile = 0; tile < IMAGES; tile++) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(document.createElement("canvas"));
    button.addEventListener("click", () => choose(tile));
    grid.append(button);
    tiles.push(button);
  }
  document.querySelectorAll("canvas").forEach((canvas) => Object.assign(canvas, { width: model.width, height: model.height }));
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -4, ArrowDown: 4 }[event.key];
    const next = state.tile + step;
    if (step && next >= 0 && next < IMAGES) {
      event.preventDefault();
      choose(next);
      tiles[next].focus();
    }
  });
  for (const [name, action] of Object.entries(actions)) find(`[data-do="${name}"]`).addEventListener("click", action);
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  find("#seed").value = "0";
  find("#seed").addEventListener("input", (event) => setSeed(event.target.value));
  slider("share", "share", redraw);
  slider("variety", "variety", redraw);
  slider("walked", "walked", () => {
    stop();
    choose(state.tile);
  });
  show("classes", model.classes.length > 1);
  show("mixing", false);
  show("variety", model.latent === "normal");
  directionControls();
  show("more", model.classes.length > 1 || model.latent === "normal" || model.directions.length > 0);
  find("main").hidden = false;
  if (model.classes.length) classControls();
  else redraw();
}

begin();

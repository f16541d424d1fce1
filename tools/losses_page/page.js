const TABLES = JSON.parse(document.getElementById("tables").textContent);
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

function show(value) {
  if (!Number.isFinite(value)) return "–";
  const text = value.toFixed(3);
  return (Number(text) === 0 ? "0.000" : text).replace("-", "−");
}

/** An SVG element inside another one. */
function svg(parent, name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}

const points = (pairs) => pairs.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** A dot that pointer and arrow keys move; `move(dx, dy)` in pixels or `nudge(across, up)` in steps. */
function handle(stage, kind, label, { to, nudge }) {
  const group = svg(stage, "g", { class: `handle ${kind}`, tabindex: 0, role: "slider", "aria-label": label });
  svg(group, "circle", { class: "hit", r: 22 });
  svg(group, "circle", { class: "dot", r: 7 });
  group.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    event.stopPropagation();
    group.setPointerCapture(event.pointerId);
    group.focus();
  });
  group.addEventListener("pointermove", (event) => {
    if (!group.hasPointerCapture(event.pointerId)) return;
    const box = stage.getBoundingClientRect();
    to(event.clientX - box.left, event.clientY - box.top);
  });
  group.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!by) return;
    event.preventDefault();
    nudge(...by.map((v) => v * (event.shiftKey ? 5 : 1)));
  });
  return (x, y, now, low, high, text) => {
    group.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    const state = { now: now.toFixed(2), min: low, max: high, text };
    for (const [key, value] of Object.entries(state)) group.setAttribute(`aria-value${key}`, value);
  };
}

/** Draws again when the stage gets another width, and at once when asked. */
function whenSized(stage, draw) {
  let wanted = false;
  const later = () => {
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(() => {
      wanted = false;
      if (stage.clientWidth) draw(stage.clientWidth);
    });
  };
  new ResizeObserver(later).observe(stage);
  return later;
}

function densities(lab) {
  const say = JSON.parse(lab.dataset.words);
  const stage = lab.querySelector("[data-stage]");
  const picture = svg(stage, "svg", { role: "group", "aria-label": `${say.p}, ${say.q}` });
  const back = svg(picture, "g", {});
  const choice = lab.querySelector('[data-in="loss"]');
  const out = (key) => lab.querySelector(`[data-out="${key}"]`);
  const HALF = 7, PAD = 34, TOP = 200, MIDDLE = 150, LOW = 130, GAP = 26;
  const worlds = {};
  const begin = () => Object.assign(worlds, { p: [0, 1], q: [...TABLES.example] });
  let width = 0, running = false, found;
  begin();
  choice.value = "non_saturating";

  const across = (x) => PAD + ((x + HALF) / (2 * HALF)) * (width - PAD - 8);
  const back_x = (px) => ((px - PAD) / (width - PAD - 8)) * 2 * HALF - HALF;
  const redraw = whenSized(stage, (w) => { width = w; draw(); });
  const set = (who, which, value) => {
    worlds[who][which] = which ? clamp(value, 0.3, 3) : clamp(value, -5, 5);
    redraw();
  };
  const side = { p: 1, q: -1 }; // of the mean on which the width is held
  const place = {};
  for (const who of ["p", "q"]) {
    place[`${who}0`] = handle(picture, who, say[`${who}0`], {
      to: (px) => set(who, 0, back_x(px)),
      nudge: (right) => set(who, 0, worlds[who][0] + 0.1 * right),
    });
    place[`${who}1`] = handle(picture, who, say[`${who}1`], {
      to: (px) => set(who, 1, side[who] * (back_x(px) - worlds[who][0])),
      nudge: (right, up) => set(who, 1, worlds[who][1] + 0.05 * (side[who] * right + up)),
    });
  }

  function learn() {
    const [mean, sd] = worlds.q;
    const limited = (slope) => 0.25 * clamp(slope, -2, 2);
    worlds.q = [clamp(mean - limited(found.mean), -5, 5), clamp(sd * Math.exp(-limited(found.width)), 0.3, 3)];
  }

  function draw() {
    const { p: real, q: fake } = worlds;
    found = contest(TABLES, choice.value, real, fake);
    const height = TOP + MIDDLE + LOW + 3 * GAP + 20;
    for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) {
      picture.setAttribute(key, value);
    }
    const inside = found.x.map((x, i) => i).filter((i) => Math.abs(found.x[i]) <= HALF);
    let body = "";
    const text = (x, y, words, anchor = "start") => {
      body += `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
    };
    const rule = (kind, from, to) => { body += `<polyline class="${kind}" points="${points([from, to])}"/>`; };

    const peak = Math.max(...["p", "q"].map((who) => 0.42 / worlds[who][1])) * 1.05;
    const base = GAP + TOP - 34;
    const up = (v) => base - (v / peak) * (base - GAP - 6);
    for (let x = -6; x <= 6; x += 2) {
      rule(x ? "grid" : "axis", [across(x), GAP], [across(x), height - 24]);
      text(across(x), height - 8, String(x).replace("-", "−"), "middle");
    }
    rule("axis", [PAD, base], [width - 8, base]);
    for (const who of ["p", "q"]) {
      const line = inside.map((i) => [across(found.x[i]), up(found[who][i])]);
      body += `<polygon class="area ${who}" points="${points([[across(-HALF), base], ...line, [across(HALF), base]])}"/>`;
      body += `<polyline class="line ${who}" points="${points(line)}"/>`;
      const [mean, sd] = worlds[who];
      const top = Math.exp(logNormal(mean, worlds[who]));
      rule(`stem ${who}`, [across(mean), base], [across(mean), up(top)]);
      const hold = mean + side[who] * sd;
      place[`${who}0`](across(mean), up(who === "p" ? top : top * 0.42), mean, -5, 5, mean.toFixed(2));
      place[`${who}1`](across(hold), up(Math.exp(logNormal(hold, worlds[who]))), sd, 0.3, 3, sd.toFixed(2));
    }
    text(PAD + 4, GAP - 8, `<tspan class="say p">${say.p}</tspan><tspan class="say q" dx="1.2em">${say.q}</tspan>`);
    for (const z of [-1.6, -0.8, 0, 0.8, 1.6]) { // how samples of q are pushed
      const x = fake[0] + fake[1] * z;
      const push = at({ from: -EDGE, step: (2 * EDGE) / (POINTS - 1) }, found.push, clamp(x, -EDGE, EDGE));
      const long = clamp(push * 26, -70, 70), y = base + 14, from = across(x);
      body += `<circle class="end" cx="${from}" cy="${y}" r="2.2"/>`;
      if (Math.abs(long) > 3) {
        const tip = from + long, barb = Math.sign(long) * Math.min(6, Math.abs(long) / 2);
        body += `<path class="arrow" d="M${from} ${y}H${tip}m${-barb} ${-4}l${barb} 4l${-barb} 4"/>`;
      }
    }

    const chart = (kind, top, tall, low, high, values, words) => {
      const y = (v) => top + tall - ((clamp(v, 9 * low, 9 * high) - low) / (high - low)) * tall;
      text(PAD + 4, top - 7, words);
      for (const tick of [low, 0, high]) {
        rule(tick === 0 ? "axis" : "grid", [PAD, y(tick)], [width - 8, y(tick)]);
        text(PAD - 6, y(tick) + 4, String(tick).replace("-", "−"), "end");
      }
      const line = points(inside.map((i) => [across(found.x[i]), y(values[i]) - top]));
      body += `<svg y="${top}" width="${width}" height="${tall}"><polyline class="line ${kind}" points="${line}"/></svg>`;
    };
    const seen = inside.filter((i) => found.p[i] > 0.01 || found.q[i] > 0.01).map((i) => Math.abs(found.best[i]));
    const reach = clamp(Math.ceil(Math.max(...seen)), 1, 12);
    chart("D", TOP + 2 * GAP, MIDDLE, -reach, reach, found.best, say.D);
    chart("pull", TOP + MIDDLE + 3 * GAP, LOW - 10, -3, 3, found.push, `${say.pull} (+ →, − ←)`);
    back.innerHTML = body;
    for (const key of ["d", "g", "mean", "width"]) out(key).textContent = show(found[key]);
  }

  const button = lab.querySelector('[data-do="run"]');
  const run = (on) => {
    running = on;
    button.setAttribute("aria-pressed", on);
  };
  function tick() {
    if (!running) return;
    learn();
    draw();
    if (Math.hypot(found.mean, found.width) < 2e-3) run(false);
    else setTimeout(() => requestAnimationFrame(tick), 60);
  }
  choice.addEventListener("change", redraw);
  lab.querySelector('[data-do="step"]').addEventListener("click", () => { learn(); draw(); });
  button.addEventListener("click", () => {
    if (!running && STILL.matches) { // all at once, without the motion
      for (let i = 0; i < 60; i++) { learn(); draw(); }
      return;
    }
    run(!running);
    tick();
  });
  lab.querySelector('[data-do="reset"]').addEventListener("click", () => { run(false); begin(); redraw(); });
}

function dirac(lab) {
  const say = JSON.parse(lab.dataset.words);
  const stage = lab.querySelector("[data-stage]");
  const picture = svg(stage, "svg", { class: "plane", role: "group", "aria-label": `${say.theta}; ${say.psi}` });
  const back = svg(picture, "g", {});
  const input = (key) => lab.querySelector(`[data-in="${key}"]`);
  const HALF = 3, PAD = 36, STEPS = 300;
  let side = 0, start = [1.5, 0], path = [], upTo = 0;

  const over = (v) => PAD + ((v + HALF) / (2 * HALF)) * (side - PAD - 10);
  const under = (v) => 10 + ((HALF - v) / (2 * HALF)) * (side - PAD - 10);
  const back_x = (px) => ((px - PAD) / (side - PAD - 10)) * 2 * HALF - HALF;
  const back_y = (py) => HALF - ((py - 10) / (side - PAD - 10)) * 2 * HALF;
  const redraw = whenSized(stage, (w) => { side = Math.min(w, 560); play(); });
  const begin = (x, y) => {
    start = [clamp(x, -HALF, HALF), clamp(y, -HALF, HALF)];
    redraw();
  };
  const place = handle(picture, "start", say.start, {
    to: (px, py) => begin(back_x(px), back_y(py)),
    nudge: (right, up) => begin(start[0] + 0.1 * right, start[1] + 0.1 * up),
  });

  function play() {
    const settings = Object.fromEntries(["rate", "r1", "r2"].map((key) => [key, Number(input(key).value)]));
    for (const key of ["rate", "r1", "r2"]) {
      lab.querySelector(`[data-of="${key}"]`).textContent = settings[key].toFixed(key === "rate" ? 2 : 1);
    }
    path = trajectory(TABLES, input("loss").value, start, settings, STEPS);
    lab.querySelector('[data-out="before"]').textContent = show(Math.hypot(...start));
    lab.querySelector('[data-out="after"]').textContent = show(Math.hypot(...path[STEPS]));
    lab.querySelector('[data-out="steps"]').textContent = STEPS;
    const fresh = upTo === 0 || upTo >= STEPS;
    upTo = STILL.matches ? STEPS : 1;
    if (fresh || STILL.matches) advance();
  }

  function advance() {
    draw();
    if (upTo >= STEPS) return;
    upTo = Math.min(STEPS, upTo + 4);
    requestAnimationFrame(advance);
  }

  function draw() {
    for (const [key, value] of Object.entries({ width: side, height: side, viewBox: `0 0 ${side} ${side}` })) {
      picture.setAttribute(key, value);
    }
    let body = "";
    for (let v = -HALF; v <= HALF; v++) {
      const kind = v ? "grid" : "axis";
      body += `<polyline class="${kind}" points="${points([[over(v), under(-HALF)], [over(v), under(HALF)]])}"/>`;
      body += `<polyline class="${kind}" points="${points([[over(-HALF), under(v)], [over(HALF), under(v)]])}"/>`;
      const name = String(v).replace("-", "−");
      body += `<text x="${over(v)}" y="${side - PAD + 40 - 22}" text-anchor="middle">${name}</text>`;
      body += `<text x="${PAD - 8}" y="${under(v) + 4}" text-anchor="end">${name}</text>`;
    }
    const gamma = Number(input("r1").value) + Number(input("r2").value);
    for (let x = -2.75; x < HALF; x += 0.5) {
      for (let y = -2.75; y < HALF; y += 0.5) {
        const way = directions(TABLES, input("loss").value, [x, y], gamma);
        const size = Math.hypot(way.theta, way.psi);
        if (size < 1e-9) continue;
        const long = 9 * Math.min(1, 0.35 + size / 2);
        const [dx, dy] = [(way.theta / size) * long, (-way.psi / size) * long];
        const [tx, ty] = [over(x) + dx, under(y) + dy];
        body += `<path class="field" d="M${(over(x) - dx).toFixed(1)} ${(under(y) - dy).toFixed(1)}L${tx.toFixed(1)} ${ty.toFixed(1)}`;
        body += `m${(-dx * 0.5 - dy * 0.3).toFixed(1)} ${(-dy * 0.5 + dx * 0.3).toFixed(1)}L${tx.toFixed(1)} ${ty.toFixed(1)}`;
        body += `l${(-dx * 0.5 + dy * 0.3).toFixed(1)} ${(-dy * 0.5 - dx * 0.3).toFixed(1)}"/>`;
      }
    }
    const drawn = path.slice(0, upTo + 1).map(([theta, psi]) => [over(clamp(theta, -9, 9)), under(clamp(psi, -9, 9))]);
    const [last] = drawn.slice(-1);
    body += `<path class="goal" d="M${over(0) - 6} ${under(0)}h12M${over(0)} ${under(0) - 6}v12"/>`;
    body += `<polyline class="path" points="${points(drawn)}"/>`;
    body += `<circle class="end" cx="${last[0]}" cy="${last[1]}" r="4"/>`;
    body += `<text x="${side - 12}" y="${under(-HALF) - 8}" text-anchor="end">${say.theta}</text>`;
    body += `<text x="${PAD + 6}" y="24">${say.psi}</text>`;
    back.innerHTML = body;
    place(over(start[0]), under(start[1]), start[0], -HALF, HALF, `θ ${start[0].toFixed(1)}, ψ ${start[1].toFixed(1)}`);
  }

  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    begin(back_x(event.clientX - box.left), back_y(event.clientY - box.top));
  });
  input("loss").value = "minimax";
  for (const key of ["loss", "rate", "r1", "r2"]) input(key).addEventListener("input", redraw);
}

// ---------------------------------------------------------------------------- languages

const LANGUAGES = ["en", "zh"];

/** Where the reader is: the last part whose beginning has passed the top of the window. */
function here(language) {
  const parts = [...document.querySelectorAll(`main#${language} [id]`)];
  const passed = parts.filter((part) => part.getBoundingClientRect().top < 120);
  return scrollY < 80 || !passed.length ? null : passed[passed.length - 1].id.slice(language.length + 1);
}

function speak(language) {
  for (const other of LANGUAGES) document.getElementById(other).hidden = other !== language;
  const main = document.getElementById(language);
  document.documentElement.lang = main.lang;
  document.title = main.dataset.title;
  for (const link of document.querySelectorAll("[data-show]")) {
    if (link.dataset.show === language) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** ?lang=, else the language of the anchor, else that of the browser. */
function asked() {
  const wish = new URLSearchParams(location.search).get("lang") || location.hash.slice(1, 3);
  if (LANGUAGES.includes(wish)) return wish;
  const known = (navigator.languages || [navigator.language]).map((name) => name.slice(0, 2).toLowerCase());
  return known.find((name) => LANGUAGES.includes(name)) || "en";
}

/** Goes to the part that the address names, with or without its language. */
function arrive() {
  const name = location.hash.slice(1).replace(/^(en|zh)-/, "");
  const part = name && document.getElementById(`${document.documentElement.lang.slice(0, 2)}-${name}`);
  if (part) part.scrollIntoView({ behavior: "instant" });
}

for (const link of document.querySelectorAll("[data-show]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const language = link.dataset.show;
    const name = here(document.documentElement.lang.slice(0, 2));
    speak(language);
    history.replaceState(null, "", `?lang=${language}${name ? `#${language}-${name}` : ""}`);
    if (name) document.getElementById(`${language}-${name}`).scrollIntoView({ behavior: "instant" });
    else scrollTo({ top: 0, behavior: "instant" });
  });
}
speak(asked());
for (const lab of document.querySelectorAll("[data-lab]")) ({ densities, dirac })[lab.dataset.lab](lab);
arrive();
addEventListener("hashchange", arrive);

"use strict";

const film = JSON.parse(document.getElementById("film-data").textContent);
const panels = JSON.parse(document.getElementById("chart-data").textContent);
const charts = [...document.querySelectorAll(".charts figure")].map((figure, at) => {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const { left, top, right, bottom } = panels[at].box;
  line.setAttribute("class", "cursor");
  line.setAttribute("y1", top);
  line.setAttribute("y2", bottom);
  line.style.visibility = "hidden";
  const svg = figure.querySelector("svg");
  svg.append(line);
  return { svg, line, left, right, caption: figure.querySelector("figcaption"), ...panels[at] };
});

/** The place in sorted numbers of the one that is nearest to x. */
function nearest(numbers, x) {
  let low = 0, high = numbers.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < x) low = middle; else high = middle;
  }
  return x - numbers[low] < numbers[high] - x ? low : high;
}

/** Show the values of all charts at a number of images seen. */
function point(seen) {
  for (const { line, left, right, first, last, curves, caption } of charts) {
    const at = Math.min(Math.max(seen, first), last);
    const x = left + (right - left) * (at - first) / (last - first);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    line.style.visibility = "visible";
    const values = Object.entries(curves).map(([name, [xs, ys]]) => `${name} ${ys[nearest(xs, at)]}`);
    caption.textContent = `${Math.round(at).toLocaleString("en")} images: ${values.join(", ")}`;
  }
}

for (const { svg, left, right, first, last } of charts) {
  svg.addEventListener("pointermove", event => {
    const { left: edge, width } = svg.getBoundingClientRect();
    const x = (event.clientX - edge) / width * svg.viewBox.baseVal.width;
    point(first + (last - first) * (x - left) / (right - left));
  });
}

if (film.length > 1) {
  const image = document.querySelector(".film img");
  const caption = document.querySelector(".film figcaption");
  const slider = document.querySelector(".film input");
  const button = document.querySelector(".film button");
  let timer = 0;

  const show = at => {
    image.src = film[at].src;
    caption.textContent = film[at].text;
    image.alt = `Generated images, ${film[at].text}`;
    slider.value = at;
    slider.setAttribute("aria-valuetext", film[at].text);
    point(film[at].seen);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  film[film.length - 1].src = image.src;
  slider.max = slider.value = film.length - 1;
  slider.addEventListener("input", () => { stop(); show(slider.valueAsNumber); });
  button.addEventListener("click", () => {
    if (timer) { stop(); return; }
    let at = slider.valueAsNumber === film.length - 1 ? 0 : slider.valueAsNumber;
    show(at);
    button.textContent = "Stop";
    timer = setInterval(() => {
      show(++at);
      if (at === film.length - 1) stop();
    }, 400);
  });
  document.querySelector(".film .controls").hidden = false;
}

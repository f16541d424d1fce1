"use strict";
// What the figures compute.  No loss is written here: both players' losses, their slopes and the best D are read
// from tables that the loss functions themselves made.

const EDGE = 16; // of the line that is integrated over
const POINTS = 641;

/** values, given at tables.from + i tables.step, at x: straight lines between them and beyond both ends. */
function at(tables, values, x) {
  const place = (x - tables.from) / tables.step;
  const i = Math.max(0, Math.min(values.length - 2, Math.floor(place)));
  return values[i] + (values[i + 1] - values[i]) * (place - i);
}

/** The same of a table that has its slopes beside it: cubic between the values (Hermite), straight beyond. */
function smooth(tables, loss, key, x) {
  const values = loss[key], slopes = loss[`${key}_slope`], h = tables.step;
  const place = (x - tables.from) / h;
  if (place <= 0 || place >= values.length - 1) return at(tables, values, x);
  const i = Math.min(values.length - 2, Math.floor(place)), t = place - i, u = 1 - t;
  return u * u * (1 + 2 * t) * values[i] + t * t * (1 + 2 * u) * values[i + 1] +
    t * u * h * (u * slopes[i] - t * slopes[i + 1]);
}

function logNormal(x, [mean, sd]) {
  return -0.5 * ((x - mean) / sd) ** 2 - Math.log(sd) - 0.5 * Math.log(2 * Math.PI);
}

/**
 * Two normal densities, given as [mean, sd], and one loss: the best D, both losses against it, their slopes in q's
 * mean and log sd with D held still, and the push on a sample at each x.
 */
function contest(tables, name, real, fake) {
  const loss = tables.losses[name];
  const read = (key, x) => smooth(tables, loss, key, x);
  const dx = (2 * EDGE) / (POINTS - 1);
  const x = Array.from({ length: POINTS }, (_, i) => -EDGE + i * dx);
  const p = x.map((v) => Math.exp(logNormal(v, real)));
  const q = x.map((v) => Math.exp(logNormal(v, fake)));

  let best;
  if (loss.potential) { // the Kantorovich potential: up where q lies more to the left than p does, else down
    let left = 0, height = 0;
    best = x.map((_, i) => {
      left += (q[i] - p[i]) * dx;
      height += (Math.abs(left) < 1e-12 ? 0 : Math.sign(left)) * dx;
      return height;
    });
    const middle = best[(POINTS - 1) / 2];
    best = best.map((v) => v - middle);
  } else {
    best = x.map((v) => {
      const ratio = logNormal(v, real) - logNormal(v, fake), h = tables.step;
      return at(tables, loss.best, loss.jumps ? Math.sign(ratio) * Math.ceil(Math.abs(ratio) / h) * h : ratio);
    });
  }

  const over = (weights, of) => weights.reduce((sum, w, i) => (w < 1e-14 ? sum : sum + w * of(i)), 0) * dx;
  // Means over pairs take every fourth point of p: of normal densities such sums are exact far beyond what is shown.
  const real_points = x.map((_, i) => i).filter((i) => i % 4 === 0 && p[i] > 1e-9);
  const over_real = (of) => real_points.reduce((sum, i) => sum + p[i] * of(i), 0) * 4 * dx;
  const cost = new Array(POINTS).fill(0); // what G pays for a sample at x, and its slope in the logit
  const slope = new Array(POINTS).fill(0);
  for (let j = 0; j < POINTS; j++) {
    if (loss.pairs) {
      cost[j] = over_real((i) => read("g", best[j] - best[i]));
      slope[j] = over_real((i) => at(tables, loss.g_slope, best[j] - best[i]));
    } else {
      cost[j] = read("g", best[j]);
      slope[j] = at(tables, loss.g_slope, best[j]);
    }
  }
  const d = loss.pairs
    ? over(q, (j) => over_real((i) => read("real", best[i] - best[j])))
    : over(p, (i) => read("real", best[i])) + over(q, (i) => read("fake", best[i]));
  const away = (i) => (x[i] - fake[0]) / fake[1];
  const push = x.map((_, i) => {
    const [low, high] = [Math.max(0, i - 1), Math.min(POINTS - 1, i + 1)];
    return (-slope[i] * (best[high] - best[low])) / (x[high] - x[low]);
  });
  return {
    x, p, q, best, push, d,
    g: over(q, (i) => cost[i]),
    mean: over(q, (i) => (cost[i] * away(i)) / fake[1]),
    width: over(q, (i) => cost[i] * (away(i) ** 2 - 1)),
  };
}

/** D's and G's downhill directions of the Dirac-GAN at (theta, psi): D(x) = psi x, the data at 0. */
function directions(tables, name, [theta, psi], gamma) {
  const logit = psi * theta;
  const loss = tables.losses[name];
  return {
    psi: -at(tables, loss.fake_slope, logit) * theta - gamma * psi,
    theta: -at(tables, loss.g_slope, logit) * psi,
  };
}

/** The points (theta, psi) of alternating updates, D before G; r1 and r2 are the two gammas. */
function trajectory(tables, name, start, { rate, r1, r2 }, steps) {
  let [theta, psi] = start;
  const points = [[theta, psi]];
  for (let step = 0; step < steps; step++) {
    psi += rate * directions(tables, name, [theta, psi], r1 + r2).psi;
    theta += rate * directions(tables, name, [theta, psi], 0).theta;
    points.push([theta, psi]);
  }
  return points;
}

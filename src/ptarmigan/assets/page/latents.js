// The latents of `ptarmigan sample`: each depends on the seed and the index of its image alone (core/seeding.py).
"use strict";

const WORD = (1n << 64n) - 1n;

// BLAKE2b (RFC 7693) of a text of at most 128 bytes: the digest of 16 bytes, as two words.
const BLAKE_START = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const BLAKE_ORDER = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
];
const BLAKE_MIXED = ["048c", "159d", "26ae", "37bf", "05af", "16bc", "278d", "349e"];

function digest(text) {
  const bytes = new TextEncoder().encode(text);
  const block = new Uint8Array(128);
  block.set(bytes);
  const message = [...new BigUint64Array(block.buffer)];
  const start = [BLAKE_START[0] ^ 0x01010010n, ...BLAKE_START.slice(1)]; // one block, no key, 16 bytes of digest
  const v = [...start, ...BLAKE_START];
  v[12] ^= BigInt(bytes.length);
  v[14] ^= WORD;
  const turned = (word, by) => ((word >> by) | (word << (64n - by))) & WORD;
  for (let round = 0; round < 12; round++) {
    const order = BLAKE_ORDER[round % 10];
    BLAKE_MIXED.forEach((places, i) => {
      const [a, b, c, d] = [...places].map((place) => parseInt(place, 16));
      for (const [half, first, second] of [[0, 32n, 24n], [1, 16n, 63n]]) {
        v[a] = (v[a] + v[b] + message[parseInt(order[2 * i + half], 16)]) & WORD;
        v[d] = turned(v[d] ^ v[a], first);
        v[c] = (v[c] + v[d]) & WORD;
        v[b] = turned(v[b] ^ v[c], second);
      }
    });
  }
  return [start[0] ^ v[0] ^ v[8], start[1] ^ v[1] ^ v[9]];
}

// One step of Philox 4x64-10 (Salmon et al., SC 2011): four words from a counter and a key of two words.
function philox(counter, key) {
  let [a, b, c, d] = [BigInt(counter), 0n, 0n, 0n];
  let [k, l] = key;
  for (let round = 0; round < 10; round++) {
    const [one, two] = [a * 0xd2e7470ee14c6c93n, c * 0xca5a826395121157n];
    [a, b, c, d] = [(two >> 64n) ^ b ^ k, two & WORD, (one >> 64n) ^ d ^ l, one & WORD];
    [k, l] = [(k + 0x9e3779b97f4a7c15n) & WORD, (l + 0xbb67ae8584caa73bn) & WORD];
  }
  return [a, b, c, d];
}

// The inverse of the normal distribution function (Wichura 1988, algorithm AS 241), exact to 16 digits.
const CENTRAL = [
  [2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457, 13731.693765509461125,
    1971.5909503065514427, 133.14166789178437745, 3.387132872796366608],
  [5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867, 5394.1960214247511077,
    687.1870074920579083, 42.313330701600911252, 1],
];
const MIDDLE = [
  [7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
    3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734],
  [1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
    0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1],
];
const OUTER = [
  [2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
    0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772],
  [2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
    0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1],
];

function normal(uniform) {
  const ratio = ([top, bottom], x) => top.reduce((sum, a) => sum * x + a) / bottom.reduce((sum, a) => sum * x + a);
  const q = uniform - 0.5;
  if (Math.abs(q) <= 0.425) return q * ratio(CENTRAL, 0.180625 - q * q);
  const r = Math.sqrt(-Math.log(q < 0 ? uniform : 1 - uniform));
  return Math.sign(q) * (r <= 5 ? ratio(MIDDLE, r - 1.6) : ratio(OUTER, r - 5));
}

let last = {}; // a seed and its key, which all images of a set share

function keyOf(seed) {
  if (last.seed !== seed) last = { seed, key: digest(`${seed}:sample`) };
  return last.key;
}

// The latents of image `index` under `seed`, a whole number below 2^63 as a BigInt: Float32Array [dim].
function latents(seed, index, dim, kind) {
  const key = keyOf(seed);
  const steps = Math.ceil(dim / 4);
  const z = new Float32Array(4 * steps);
  for (let step = 0; step < steps; step++) {
    philox(index * steps + step + 1, key).forEach((word, i) => {
      const uniform = (Number(word >> 11n) + 0.5) * 2 ** -53;
      z[4 * step + i] = kind === "normal" ? normal(uniform) : 2 * uniform - 1;
    });
  }
  return z.subarray(0, dim);
}

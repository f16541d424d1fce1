// Carries out the steps of a generator (sharing/program.py).  A map is [channels, n, height, width], in this order.
"use strict";

const ROWS = 4, COLUMNS = 8; // of the product that the kernel computes at once
const TILE = 256; // columns of a product, at most, unless one line of a map is longer

// The kernel: product [ROWS, COLUMNS] = block [inner, ROWS]' panel [inner, COLUMNS].  All three are places in `memory`,
// in bytes; `stride` bytes lie between two rows of the product.  It is WebAssembly with SIMD where there is that.
function makeKernel(memory) {
  try {
    const module = new WebAssembly.Module(kernelCode());
    return new WebAssembly.Instance(module, { js: { memory } }).exports.kernel;
  } catch {
    return kernelInScript(new Float32Array(memory.buffer));
  }
}

function kernelInScript(f) {
  return (block, panel, product, inner, stride) => {
    for (let column = 0; column < COLUMNS; column += 2) {
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      for (let k = 0, i = block >> 2, j = (panel >> 2) + column; k < inner; k++, i += ROWS, j += COLUMNS) {
        const a = f[j], b = f[j + 1];
        a0 += f[i] * a; a1 += f[i + 1] * a; a2 += f[i + 2] * a; a3 += f[i + 3] * a;
        b0 += f[i] * b; b1 += f[i + 1] * b; b2 += f[i + 2] * b; b3 += f[i + 3] * b;
      }
      const at = (product >> 2) + column, row = stride >> 2;
      f[at] = a0; f[at + row] = a1; f[at + 2 * row] = a2; f[at + 3 * row] = a3;
      f[at + 1] = b0; f[at + row + 1] = b1; f[at + 2 * row + 1] = b2; f[at + 3 * row + 1] = b3;
    }
  };
}

// The WebAssembly module, byte by byte.
function kernelCode() {
  const [BLOCK, PANEL, PRODUCT, INNER, STRIDE, SUMS, LEFT, RIGHT, WEIGHT] = [0, 1, 2, 3, 4, 5, 13, 14, 15]; // locals
  const number = (n) => (n < 128 ? [n] : [(n & 127) | 128, n >> 7]);
  const sized = (bytes) => [...number(bytes.length), ...bytes];
  const section = (id, ...bytes) => [id, ...sized(bytes)];
  const name = (text) => sized([...text].map((c) => c.charCodeAt(0)));
  const get = (local) => [0x20, local];
  const set = (local) => [0x21, local];
  const load = (from, offset, to) => [...get(from), 0xfd, 0x00, 0, offset, ...set(to)]; // v128.load
  const splat = (from, offset, to) => [...get(from), 0xfd, 0x09, 0, offset, ...set(to)]; // v128.load32_splat
  const store = (to, offset, from) => [...get(to), ...get(from), 0xfd, 0x0b, 0, offset]; // v128.store
  const addTo = (sum, x) => [...get(sum), ...get(WEIGHT), ...get(x), 0xfd, 0xe6, 1, 0xfd, 0xe4, 1, ...set(sum)]; // f32x4
  const advance = (local, bytes) => [...get(local), 0x41, bytes, 0x6a, ...set(local)]; // i32.const, i32.add
  const rows = [0, 1, 2, 3];
  const body = [
    1, 11, 0x7b, // eleven locals of type v128
    0x03, 0x40, // loop
    ...load(PANEL, 0, LEFT), ...load(PANEL, 16, RIGHT),
    ...rows.flatMap((row) => [
      ...splat(BLOCK, 4 * row, WEIGHT), ...addTo(SUMS + 2 * row, LEFT), ...addTo(SUMS + 2 * row + 1, RIGHT),
    ]),
    ...advance(BLOCK, 16), ...advance(PANEL, 32),
    ...get(INNER), 0x41, 1, 0x6b, 0x22, INNER, 0x0d, 0, // inner -= 1, and again unless it is 0
    0x0b,
    ...rows.flatMap((row) => [
      ...store(PRODUCT, 0, SUMS + 2 * row), ...store(PRODUCT, 16, SUMS + 2 * row + 1),
      ...get(PRODUCT), ...get(STRIDE), 0x6a, ...set(PRODUCT),
    ]),
    0x0b,
  ];
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, 1, 0x60, 5, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0), // the type: five i32, no result
    ...section(2, 1, ...name("js"), ...name("memory"), 0x02, 0x00, 1),
    ...section(3, 1, 0),
    ...section(7, 1, ...name("kernel"), 0x00, 0),
    ...section(10, 1, ...sized(body)),
  ]);
}

// Sixteen bits of IEEE 754 as a number.
function fromHalf(bits) {
  const exponent = (bits >> 10) & 31, digits = bits & 1023;
  const size = exponent ? (1024 + digits) * 2 ** (exponent - 25) : digits * 2 ** -24;
  return bits & 0x8000 ? -size : size;
}

class Network {
  // `model` is what sharing/page.py writes; `bytes` are its weights, a Uint8Array.
  constructor(model, bytes) {
    this.model = model;
    this.bytes = bytes;
    this.embedding = model.embedding && this.halves(model.embedding, new Float32Array(model.embedding.count));
    this.spreads = model.steps.map((step) => step.by ?? step).filter((step) => step.do === "spread");
    const room = (size) => Math.max(0, ...this.spreads.map(size));
    const weights = this.spreads.reduce((sum, step) => sum + step.weight.count, 0);
    const panels = room((step) => step.inputs * (TILE + COLUMNS));
    const product = room((step) => step.weight.count / step.inputs * (TILE + COLUMNS));
    const size = 4 * (weights + panels + product);
    this.memory = typeof WebAssembly === "object"
      ? new WebAssembly.Memory({ initial: Math.ceil(size / 65536) })
      : { buffer: new ArrayBuffer(size) };
    this.floats = new Float32Array(this.memory.buffer);
    this.kernel = makeKernel(this.memory);
    let at = 0;
    for (const step of this.spreads) {
      step.at = at;
      this.halves(step.weight, this.floats.subarray(at, at += step.weight.count));
      step.offsets = this.singles(step.bias);
    }
    this.panels = at;
    this.product = at + panels;
    for (const step of model.steps) {
      if (step.do === "scale") step.values = [this.singles(step.scale), this.singles(step.shift)];
    }
  }

  halves({ at, count, scale }, to) {
    const bits = new Uint16Array(this.bytes.buffer, this.bytes.byteOffset + at, count);
    for (let i = 0; i < count; i++) to[i] = fromHalf(bits[i]) * scale;
    return to;
  }

  singles({ at, count }) {
    return new Float32Array(this.bytes.buffer, this.bytes.byteOffset + at, count);
  }

  // points [{z, of}] -> pixels of each image, RGBA: Uint8ClampedArray [height * width * 4].  `of` is the class
  // embedding, of length 0 without classes.
  draw(points) {
    const n = points.length;
    const length = points[0].z.length + points[0].of.length;
    const given = { channels: length, n, height: 1, width: 1, data: new Float32Array(length * n) };
    points.forEach(({ z, of }, i) => {
      [...z, ...of].forEach((value, channel) => { given.data[channel * n + i] = value; });
    });
    let map = given, kept = null;
    for (const step of this.model.steps) {
      if (step.do === "keep") kept = { ...map, data: map.data.slice() };
      else if (step.do === "swap") [map, kept] = [kept, map];
      else if (step.do === "add") kept.data.forEach((value, i) => { map.data[i] += value; });
      else map = this[step.do](map, step, given);
    }
    return points.map((_, i) => this.pixels(map, i));
  }

  // A transposed convolution: each pixel times the weights, added to the output where the kernel falls.
  spread(map, step) {
    const { inputs, outputs, groups, stride, pad, kernel: [tall, wide], side: [height, width] } = step;
    const { n, height: lines, width: places } = map, f = this.floats;
    const out = { channels: outputs, n, height, width, data: new Float32Array(outputs * n * height * width) };
    const plane = height * width, each = step.offsets.length / outputs; // 1, or one offset for each pixel
    for (let o = 0, at = 0; o < outputs; o++) {
      for (let i = 0; i < n; i++) for (let p = 0; p < plane; p++) out.data[at++] = step.offsets[o * each + (each > 1 ? p : 0)];
    }
    const inner = inputs / groups, ofGroup = outputs / groups;
    const blocks = step.weight.count / groups / inner / ROWS;
    const linesOfTile = Math.max(1, Math.floor(TILE / places));
    for (let group = 0; group < groups; group++) {
      for (let first = 0; first < n * lines; first += linesOfTile) {
        const last = Math.min(n * lines, first + linesOfTile);
        const columns = (last - first) * places, padded = Math.ceil(columns / COLUMNS) * COLUMNS;
        for (let k = 0; k < inner; k++) {
          const from = ((group * inner + k) * n * lines + first) * places;
          for (let j = 0; j < columns; j++) {
            f[this.panels + ((j >> 3) * inner + k) * COLUMNS + (j & 7)] = map.data[from + j];
          }
        }
        for (let panel = 0; panel < padded / COLUMNS; panel++) {
          for (let block = 0; block < blocks; block++) {
            this.kernel(
              4 * (step.at + (group * blocks + block) * inner * ROWS), 4 * (this.panels + panel * inner * COLUMNS),
              4 * (this.product + block * ROWS * padded + panel * COLUMNS), inner, 4 * padded,
            );
          }
        }
        for (let row = 0; row < ofGroup * tall * wide; row++) {
          const o = group * ofGroup + Math.floor(row / (tall * wide));
          const down = Math.floor(row / wide) % tall - pad, right = row % wide - pad;
          const start = Math.max(0, Math.ceil(-right / stride));
          const stop = Math.min(places, Math.floor((width - 1 - right) / stride) + 1);
          for (let line = first; line < last; line++) {
            const y = (line % lines) * stride + down;
            if (y < 0 || y >= height) continue;
            let to = ((o * n + Math.floor(line / lines)) * height + y) * width + right + start * stride;
            let from = this.product + row * padded + (line - first) * places + start;
            for (let x = start; x < stop; x++, to += stride) out.data[to] += f[from++];
          }
        }
      }
    }
    return out;
  }

  // The scale and shift of each channel and image, which a layer computes from the latents and the class.
  modulate(map, step, given) {
    const by = this.spread(given, step.by).data; // [2 * channels, n]
    const size = map.height * map.width, planes = map.channels * map.n;
    for (let plane = 0, at = 0; plane < planes; plane++) {
      for (let p = 0; p < size; p++, at++) map.data[at] = map.data[at] * by[plane] + by[planes + plane];
    }
    return map;
  }

  scale(map, { values: [scale, shift] }) {
    const size = map.n * map.height * map.width;
    for (let channel = 0, at = 0; channel < map.channels; channel++) {
      for (let p = 0; p < size; p++, at++) map.data[at] = map.data[at] * scale[channel] + shift[channel];
    }
    return map;
  }

  leaky(map, { slope }) {
    for (let i = 0; i < map.data.length; i++) if (map.data[i] < 0) map.data[i] *= slope;
    return map;
  }

  tanh(map) {
    for (let i = 0; i < map.data.length; i++) map.data[i] = Math.tanh(map.data[i]);
    return map;
  }

  // Each pixel four times.
  repeat(map, { side }) {
    return resized(map, side, (from, y, x) => from[(y >> 1) * map.width + (x >> 1)]);
  }

  // Twice the size: 3/4 of the nearest pixel and 1/4 of the next along each axis, and zeros outside of the map.
  double(map, { side }) {
    const { height, width } = map;
    const next = (place) => (place >> 1) + (place & 1 ? 1 : -1);
    const across = (from, y, x) => {
      if (y < 0 || y >= height) return 0;
      const far = next(x);
      return 0.75 * from[y * width + (x >> 1)] + (far < 0 || far >= width ? 0 : 0.25 * from[y * width + far]);
    };
    return resized(map, side, (from, y, x) => 0.75 * across(from, y >> 1, x) + 0.25 * across(from, next(y), x));
  }

  pixels(map, image) {
    const size = map.height * map.width, out = new Uint8ClampedArray(4 * size); // rounds and clamps
    for (let channel = 0; channel < 4; channel++) {
      const from = (Math.min(channel, map.channels - 1) * map.n + image) * size;
      const opaque = channel === 3 && map.channels < 4;
      for (let p = 0; p < size; p++) out[4 * p + channel] = opaque ? 255 : (map.data[from + p] + 1) * 127.5;
    }
    return out;
  }
}

// A map of another height and width, with `value(plane, y, x)` at each pixel.
function resized(map, [height, width], value) {
  const planes = map.channels * map.n, from = map.height * map.width;
  const data = new Float32Array(planes * height * width);
  for (let plane = 0, at = 0; plane < planes; plane++) {
    const source = map.data.subarray(plane * from, (plane + 1) * from);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) data[at++] = value(source, y, x);
  }
  return { ...map, height, width, data };
}

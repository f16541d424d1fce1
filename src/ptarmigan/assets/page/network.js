// Carries out the steps of a generator (sharing/program.py).  A map is { channels, n, height, width, at }.  Its numbers
// begin at `at`: one plane for each channel, in which the lines of all images lie one below the other.  Each line has
// one place of margin to its left, each image one line of margin above it, and the last image also one below it.  What
// lies right of a line is the margin of the next one.  A convolution needs zeros in the margins.
"use strict";

const ROWS = 4, COLUMNS = 8; // of the product that the kernel computes at once
const AREAS = 4; // for large maps: at most this many are in use at the same time

const sizeOfPlane = ({ n, height, width }) => (n * (height + 1) + 1) * (width + 1) + COLUMNS; // the kernel's last ones
const blocksOf = (channels, groups) => groups * Math.ceil(channels / groups / ROWS);
const firstOfLine = ({ height, width }, image, y) => (image * (height + 1) + 1 + y) * (width + 1) + 1;

// The kernel: product [ROWS, COLUMNS] = offsets [ROWS] + weights [inner, ROWS]' lines [inner, COLUMNS].  `block` has
// the offsets and then the weights; line i begins at `input` + the number i of `table`; `stride` lies between two rows
// of the product.  All are places in `memory`, in bytes.  It is WebAssembly with SIMD where there is that, and
// multiplies and adds in one operation where there is that too.
function makeKernel(memory) {
  for (const fused of [true, false]) {
    try {
      const module = new WebAssembly.Module(kernelCode(fused));
      return new WebAssembly.Instance(module, { js: { memory } }).exports.kernel;
    } catch {} // the next way
  }
  return kernelInScript(memory);
}

function kernelInScript({ buffer }) {
  const f = new Float32Array(buffer), integers = new Int32Array(buffer);
  return (block, input, table, product, inner, stride) => {
    for (let column = 0; column < COLUMNS; column += 2) {
      let i = block >> 2, j = table >> 2;
      let a0 = f[i], a1 = f[i + 1], a2 = f[i + 2], a3 = f[i + 3], b0 = a0, b1 = a1, b2 = a2, b3 = a3;
      for (let k = 0; k < inner; k++) {
        const place = ((input + integers[j++]) >> 2) + column, a = f[place], b = f[place + 1];
        i += ROWS;
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
function kernelCode(fused) {
  const [BLOCK, INPUT, TABLE, PRODUCT, INNER, STRIDE] = [0, 1, 2, 3, 4, 5]; // the arguments
  const [PLACE, SUMS, LEFT, RIGHT, WEIGHT] = [6, 7, 15, 16, 17]; // of which SUMS are eight
  const number = (n) => (n < 128 ? [n] : [(n & 127) | 128, n >> 7]);
  const sized = (bytes) => [...number(bytes.length), ...bytes];
  const section = (id, ...bytes) => [id, ...sized(bytes)];
  const name = (text) => sized([...text].map((c) => c.charCodeAt(0)));
  const get = (local) => [0x20, local];
  const set = (local) => [0x21, local];
  const load = (from, offset, to) => [...get(from), 0xfd, 0x00, 0, offset, ...set(to)]; // v128.load
  const splat = (from, offset, to) => [...get(from), 0xfd, 0x09, 0, offset, ...set(to)]; // v128.load32_splat
  const store = (to, offset, from) => [...get(to), ...get(from), 0xfd, 0x0b, 0, offset]; // v128.store
  const addTo = (sum, x) => (fused
    ? [...get(WEIGHT), ...get(x), ...get(sum), 0xfd, 0x85, 2, ...set(sum)] // f32x4.relaxed_madd
    : [...get(sum), ...get(WEIGHT), ...get(x), 0xfd, 0xe6, 1, 0xfd, 0xe4, 1, ...set(sum)]); // f32x4.mul, f32x4.add
  const advance = (local, bytes) => [...get(local), 0x41, bytes, 0x6a, ...set(local)]; // i32.const, i32.add
  const rows = [0, 1, 2, 3];
  const body = [
    2, 1, 0x7f, 11, 0x7b, // one local of type i32, eleven of type v128
    ...rows.flatMap((row) => [
      ...splat(BLOCK, 4 * row, SUMS + 2 * row), ...get(SUMS + 2 * row), ...set(SUMS + 2 * row + 1),
    ]),
    0x03, 0x40, // loop
    ...advance(BLOCK, 16),
    ...get(INPUT), ...get(TABLE), 0x28, 2, 0, 0x6a, ...set(PLACE), // i32.load, i32.add
    ...advance(TABLE, 4),
    ...load(PLACE, 0, LEFT), ...load(PLACE, 16, RIGHT),
    ...rows.flatMap((row) => [
      ...splat(BLOCK, 4 * row, WEIGHT), ...addTo(SUMS + 2 * row, LEFT), ...addTo(SUMS + 2 * row + 1, RIGHT),
    ]),
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
    ...section(1, 1, 0x60, 6, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0), // the type: six i32, no result
    ...section(2, 1, ...name("js"), ...name("memory"), 0x02, 0x00, 1),
    ...section(3, 1, 0),
    ...section(7, 1, ...name("kernel"), 0x00, 0),
    ...section(10, 1, ...sized(body)),
  ]);
}

class Network {
  // `model` is what sharing/page.py writes; `bytes` are its weights, a Uint8Array; `most` images are drawn at once.
  constructor({ embedding, steps }, bytes, most) {
    this.bytes = bytes;
    this.steps = steps;
    this.embedding = embedding && this.matrix(embedding);
    const convolutions = steps.map((step) => step.by ?? step).filter((step) => step.phases);
    const sum = (count) => convolutions.reduce((total, step) => total + count(step), 0);
    const greatest = (list, size) => Math.max(0, ...list.map(size));
    const even = (count) => count + count % 2; // an odd side is cropped from an even one
    const large = greatest(steps.filter((step) => step.side), ({ channels, side: [height, width] }) =>
      (channels + ROWS) * sizeOfPlane({ n: most, height: even(height), width: even(width) }));
    const small = ROWS + Math.max(steps[0].inputs, greatest(steps, ({ by }) => by?.channels ?? 0));
    const inner = ({ weight }) => weight.columns;
    let size = 0;
    const area = (count) => (size += count) - count;
    this.areas = Array.from({ length: AREAS }, () => area(large));
    [this.given, this.modulation] = [0, 0].map(() => area(small * sizeOfPlane({ n: 1, height: 1, width: most })));
    this.table = area(greatest(convolutions, ({ phases }) => greatest(phases, inner)));
    const weights = area(sum(({ channels, groups, phases }) =>
      blocksOf(channels, groups) * phases.reduce((total, phase) => total + ROWS * (1 + inner(phase)), 0)));
    this.memory = typeof WebAssembly === "object"
      ? new WebAssembly.Memory({ initial: Math.ceil(size / 16384) })
      : { buffer: new ArrayBuffer(4 * size) };
    this.floats = new Float32Array(this.memory.buffer);
    this.integers = new Int32Array(this.memory.buffer);
    this.kernel = makeKernel(this.memory);
    convolutions.reduce((at, step) => this.pack(step, at), weights);
  }

  // Numbers [rows * columns]: integers of 16 bits, after a factor for each row.
  matrix({ at, rows, columns }) {
    const factors = this.vector({ at, count: rows });
    const integers = new Int16Array(this.bytes.buffer, this.bytes.byteOffset + at + 4 * rows, rows * columns);
    const numbers = new Float32Array(rows * columns);
    for (let row = 0, i = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, i++) numbers[i] = integers[i] * factors[row];
    }
    return numbers;
  }

  vector({ at, count }) {
    return new Float32Array(this.bytes.buffer, this.bytes.byteOffset + at, count);
  }

  // Puts the offsets and weights of a step into the memory, as the kernel reads them; returns the place behind them.
  pack({ groups, channels, bias, phases }, at) {
    const offsets = this.vector(bias), ofGroup = channels / groups, blocks = blocksOf(channels, groups) / groups;
    for (const phase of phases) {
      const weights = this.matrix(phase.weight), inner = phase.weight.columns;
      phase.at = at;
      for (let row = 0; row < groups * blocks * ROWS; row++) {
        const inGroup = row % (blocks * ROWS), o = Math.floor(row / (blocks * ROWS)) * ofGroup + inGroup;
        const to = at + Math.floor(row / ROWS) * ROWS * (1 + inner) + row % ROWS;
        if (inGroup >= ofGroup) continue; // a row of zeros that fills the block
        this.floats[to] = offsets[o];
        for (let k = 0; k < inner; k++) this.floats[to + ROWS * (1 + k)] = weights[o * inner + k];
      }
      at += groups * blocks * ROWS * (1 + inner);
    }
    return at;
  }

  // points [{z, of}] -> pixels of each image, RGBA: Uint8ClampedArray [height * width * 4].  `of` is the class
  // embedding, of length 0 without classes.
  draw(points) {
    const given = { channels: this.steps[0].inputs, n: 1, height: 1, width: points.length, at: this.given };
    points.forEach(({ z, of }, i) => {
      [...z, ...of].forEach((value, channel) => {
        this.floats[given.at + channel * sizeOfPlane(given) + firstOfLine(given, 0, 0) + i] = value;
      });
    });
    let map = given;
    this.kept = null;
    for (const step of this.steps) {
      if (step.do === "swap") [map, this.kept] = [this.kept, map];
      else map = this[step.do](map, step, given) ?? map;
    }
    return points.map((_, i) => this.pixels(map, i));
  }

  // A map in an area that neither `map` nor the kept map has, nor `other`.
  free(map, channels, n, [height, width], other) {
    const at = this.areas.find((area) => ![map, this.kept, other].some((taken) => taken?.at === area));
    return { channels, n, height, width, at };
  }

  // Where the numbers of a map begin and end.
  extent(map) {
    return [map.at, map.at + map.channels * sizeOfPlane(map)];
  }

  // Calls `work` with the place of each line and with its channel, image and y.
  eachLine(map, work) {
    for (let channel = 0; channel < map.channels; channel++) {
      for (let image = 0; image < map.n; image++) {
        for (let y = 0; y < map.height; y++) {
          work(map.at + channel * sizeOfPlane(map) + firstOfLine(map, image, y), channel, image, y);
        }
      }
    }
  }

  clearMargins(map) {
    const row = map.width + 1, lines = map.n * (map.height + 1) + 1;
    for (let channel = 0, at = map.at; channel < map.channels; channel++, at += sizeOfPlane(map)) {
      for (let line = 0; line < lines; line++) {
        const count = line % (map.height + 1) ? 1 : row + 1;
        for (let i = 0; i < count; i++) this.floats[at + line * row + i] = 0;
      }
    }
  }

  // A convolution: each output is the offset of its channel and a weighted sum over the `taps` [[down, right]], which
  // are at most one place away.  At stride 2 there is one such convolution for each of the four pixels from one.
  convolve(map, step) {
    const { channels, stride, phases, side: [height, width] } = step;
    if (phases.some(({ taps }) => taps.length > 1)) this.clearMargins(map);
    const out = this.free(map, channels, map.n, [height, width]);
    if (height === map.height && width === map.width) {
      this.multiply(map, step, phases[0], out);
      return out;
    }
    const product = this.free(map, channels, map.n, [map.height, map.width], out), f = this.floats;
    phases.forEach((phase, i) => {
      this.multiply(map, step, phase, product);
      const down = Math.floor(i / stride), right = i % stride;
      this.eachLine(product, (from, channel, image, y) => {
        const line = y * stride + down;
        if (line >= height) return;
        const to = out.at + channel * sizeOfPlane(out) + firstOfLine(out, image, line);
        for (let x = right; x < width; x += stride) f[to + x] = f[from++];
      });
    });
    return out;
  }

  // Multiplies the weights of a phase with the lines of `map`, for all places from its first pixel to its last: what
  // comes of the margins between them has no meaning.  `out` has planes of the same size.
  multiply(map, { channels, groups }, { taps, at, weight: { columns: inner } }, out) {
    const { kernel, table } = this, plane = sizeOfPlane(map);
    const inputs = map.channels / groups, ofGroup = channels / groups, blocks = Math.ceil(ofGroup / ROWS);
    for (let k = 0; k < inner; k++) {
      const [down, right] = taps[k % taps.length];
      this.integers[table + k] = 4 * (Math.floor(k / taps.length) * plane + down * (map.width + 1) + right);
    }
    const end = firstOfLine(map, map.n - 1, map.height - 1) + map.width;
    for (let group = 0; group < groups; group++) {
      for (let place = firstOfLine(map, 0, 0); place < end; place += COLUMNS) {
        for (let block = 0; block < blocks; block++) {
          kernel(
            4 * (at + (group * blocks + block) * ROWS * (1 + inner)), 4 * (map.at + group * inputs * plane + place),
            4 * table, 4 * (out.at + (group * ofGroup + block * ROWS) * plane + place), inner, 4 * plane,
          );
        }
      }
    }
  }

  // A linear layer from `given`, a map of one line whose places are images, to images of `shape`.
  project(given, step) {
    const line = this.free(given, step.channels, 1, [1, given.width]), plane = sizeOfPlane(line);
    const [channels, height, width] = step.shape, out = this.free(line, channels, given.width, [height, width]);
    this.multiply(given, step, step.phases[0], line);
    const f = this.floats, first = line.at + firstOfLine(line, 0, 0);
    this.eachLine(out, (to, channel, image, y) => {
      const from = first + (channel * height + y) * width * plane + image;
      for (let x = 0; x < width; x++) f[to + x] = f[from + x * plane];
    });
    return out;
  }

  // Twice the size: along each axis `near` of the nearest pixel and the rest of the next one, which may be a margin.
  double(map, { channels, side, near }) {
    this.clearMargins(map);
    const out = this.free(map, channels, map.n, side), f = this.floats, row = map.width + 1;
    const [both, one, none] = [near * near, near * (1 - near), (1 - near) * (1 - near)];
    this.eachLine(out, (to, channel, image, y) => {
      const line = map.at + channel * sizeOfPlane(map) + firstOfLine(map, image, y >> 1), next = y & 1 ? row : -row;
      for (let x = 0; x < out.width; x++) {
        const at = line + (x >> 1), step = x & 1 ? 1 : -1;
        f[to + x] = both * f[at] + one * (f[at + step] + f[at + next]) + none * f[at + next + step];
      }
    });
    return out;
  }

  // The scale and shift of each channel and image, which a layer computes from the latents and the class.
  modulate(map, { by }, given) {
    const line = { ...given, channels: by.channels, at: this.modulation }, plane = sizeOfPlane(line), f = this.floats;
    this.multiply(given, by, by.phases[0], line);
    const first = line.at + firstOfLine(line, 0, 0);
    this.eachLine(map, (at, channel, image) => {
      const scale = f[first + channel * plane + image], shift = f[first + (map.channels + channel) * plane + image];
      for (let i = at; i < at + map.width; i++) f[i] = f[i] * scale + shift;
    });
  }

  scale(map, step) {
    const scale = this.vector(step.scale), shift = this.vector(step.shift), f = this.floats;
    this.eachLine(map, (at, channel) => {
      for (let i = at; i < at + map.width; i++) f[i] = f[i] * scale[channel] + shift[channel];
    });
  }

  leaky(map, { slope }) {
    const f = this.floats, [begin, end] = this.extent(map), [own, size] = [(1 + slope) / 2, (1 - slope) / 2];
    for (let i = begin; i < end; i++) f[i] = own * f[i] + size * Math.abs(f[i]); // without a branch to mispredict
  }

  tanh(map) {
    const f = this.floats, [begin, end] = this.extent(map);
    for (let i = begin; i < end; i++) f[i] = Math.tanh(f[i]);
  }

  keep(map) {
    this.kept = this.free(map, map.channels, map.n, [map.height, map.width]);
    this.floats.copyWithin(this.kept.at, ...this.extent(map));
  }

  add(map) {
    const f = this.floats, [begin, end] = this.extent(map), away = this.kept.at - begin;
    for (let i = begin; i < end; i++) f[i] += f[i + away];
  }

  pixels(map, image) {
    const out = new Uint8ClampedArray(4 * map.height * map.width); // rounds and clamps
    for (let channel = 0; channel < 4; channel++) {
      const plane = map.at + Math.min(channel, map.channels - 1) * sizeOfPlane(map);
      const opaque = channel === 3 && map.channels < 4;
      for (let y = 0, to = channel; y < map.height; y++) {
        const line = plane + firstOfLine(map, image, y);
        for (let x = 0; x < map.width; x++, to += 4) out[to] = opaque ? 255 : (this.floats[line + x] + 1) * 127.5;
      }
    }
    return out;
  }
}

/* The kernels, and what theory predicts, as functions for a page. One function without outside names: it runs in a
   worker, in the page and, when the site is built, in V8. Everything is in natural logarithms, as in vgp_kernels.

   `fused`: [old, new] bytes that put the machine's own multiply-add in the place of calls of the emulated one. */
function vgpKernels({ bytes, activations, fused }) {
  const memory = new WebAssembly.Memory({ initial: 16 });
  const stack = new WebAssembly.Global({ value: "i32", mutable: true }, 65536);
  const exported = (module) => new WebAssembly.Instance(new WebAssembly.Module(module), { env: { __linear_memory: memory, __stack_pointer: stack } }).exports;

  const faster = bytes.slice();
  for (const [before, after] of fused) {
    for (let at = faster.indexOf(before[0]); at >= 0; at = faster.indexOf(before[0], at + 1)) {
      if (before.every((byte, i) => faster[at + i] === byte)) faster.set(after, at);
    }
  }
  const candidate = WebAssembly.validate(faster) ? exported(faster) : null;
  // relaxed SIMD may round a·b + c once or twice, as the machine likes, but always alike: here is what tells them apart
  const isFused = candidate?.one_fma32(1 + 2 ** -12, 1 + 2 ** -12, -1 - 2 ** -11) === 2 ** -24 &&
    candidate.one_fma64(1 + 2 ** -27, 1 + 2 ** -27, -1 - 2 ** -26) === 2 ** -54;
  const wasm = isFused ? candidate : exported(bytes);
  const BASE = 131072, LANES = 4;  // below: the module's own data and its stack; networks per call

  const number = (name) => {
    const index = activations.findIndex((phi) => phi.name === name);
    if (index < 0) throw new Error(`unknown activation ${name}`);
    return index;
  };

  /* Calls the kernel with room for so many numbers, and for what else it needs above them; gives the numbers. */
  function called(kernel, size, ...options) {
    const missing = BASE + 8 * size + 64 - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    kernel(...options, BASE, (BASE + 8 * size + 63) & -64);
    return new Float64Array(memory.buffer, BASE, size);
  }

  const PLACES = { none: 0, input: 1, middle: 2, output: 3 }, NORMS = { batch: 1, batch_inference: 2, layer: 3, rms: 4 };

  /* Trials first … first + trials - 1 of vgp_kernels.propagate, to the bit: one array per network. */
  function propagate({ activation, depth, width, weightVariance, biasVariance = 0, orthogonal = false, inputWidth = width,
    firstWeightVariance = weightVariance, inputRms = 1, batchSize = 1, inputCorrelation = 0, normalisation = null,
    normPosition = "pre", residual = null, residualScale = 1, seed = 0, first = 0, trials }) {
    const layers = depth + 1, index = number(activation), low = seed % 4294967296, high = Math.floor(seed / 4294967296);
    const flow = { logSignal: [], logGradient: [], logWeightGradient: [] };
    const keep = (signal, gradient, weights) => {
      flow.logSignal.push(signal); flow.logGradient.push(gradient); flow.logWeightGradient.push(weights);
    };
    if (batchSize === 1 && !normalisation && !residual) {
      for (let trial = first; trial < first + trials; trial += LANES) {
        const out = called(wasm.propagate, (2 * layers + depth) * LANES, index, depth, width, inputWidth, weightVariance,
          firstWeightVariance, biasVariance, inputRms, orthogonal ? 1 : 0, low, high, trial);
        for (let lane = 0; lane < LANES && trial + lane < first + trials; lane++) {
          const curve = (from, count) => Float64Array.from({ length: count }, (_, i) => out[(from + i) * LANES + lane]);
          keep(curve(0, layers), curve(layers, layers), curve(2 * layers, depth));
        }
      }
      return flow;
    }
    const one = residual !== "preactivation", two = residual === "preactivation" || residual === "two_weights";
    const place = !normalisation ? "none" : normPosition === "post" ? "output" : two ? "input" : "middle";
    const scale = (variance, fanIn) => orthogonal ? Math.sqrt(variance) : Math.sqrt(variance) / Math.sqrt(fanIn);
    for (let trial = first; trial < first + trials; trial++) {
      const out = called(wasm.propagate_blocks, 4 * layers + depth * (one && two ? 2 : 1), index, depth, width, inputWidth,
        batchSize, one ? 1 : 0, two ? 1 : 0, residual ? 1 : 0, NORMS[normalisation] || 0, PLACES[place], orthogonal ? 1 : 0,
        scale(firstWeightVariance, inputWidth), scale(weightVariance, width), Math.sqrt(biasVariance), residualScale, inputRms,
        inputCorrelation, low, high, trial);
      keep(out.slice(0, layers), out.slice(layers, 2 * layers), out.slice(4 * layers));
    }
    return flow;
  }

  function valueAndSlope({ activation, z }) {
    return z.map((x) => {
      wasm.value_and_slope(number(activation), x, BASE);
      return Array.from(new Float64Array(memory.buffer, BASE, 2));
    });
  }

  // Mean field. Beyond these, φ is a straight line on either side of 0, and moments are scaled from the end of the range.
  const LOG_SMALL = Math.log(1e-28), LOG_LARGE = Math.log(1e28), MARGINAL = 1e-9;
  const logSum = (x, y) => Math.max(x, y) + (x === y ? Math.LN2 : Math.log1p(Math.exp(-Math.abs(x - y))));

  /* ln E φ², E φ′², d/dq E φ² and E φ/√(E φ²) at q = e^logQ. */
  function moments(activation, logQ) {
    const index = number(activation), phi = activations[index];
    let near = logQ;
    if (phi.vanishesAtZero) near = Math.max(near, LOG_SMALL);
    if (!phi.isBounded) near = Math.min(near, LOG_LARGE);
    near = Math.min(Math.max(near, -500), 200);
    const root = Math.exp(near / 2);
    const [square, slope, growth, mean] = called(wasm.moments, 4, index, root);
    const scaled = phi.vanishesAtZero && logQ < near || !phi.isBounded && logQ > near;
    return { logValue: Math.log(square) + (scaled ? logQ - near : 0), slope, growth: growth / root, mean: mean / Math.sqrt(square) };
  }

  /* One step of a layer: forward on second moments { logSquare, correlation, mean }, and `back`, by which it multiplies
     the products of two gradients: of one input with itself, and of two inputs. See vgp_kernels.mean_field. */
  const times = ([[a, b], [c, d]], [[e, f], [g, h]]) => [[a * e + b * g, a * f + b * h], [c * e + d * g, c * f + d * h]];
  const multiple = (factor) => [[factor, 0], [0, factor]];
  const operations = {
    dense: (weightVariance, biasVariance) => ({ logSquare, correlation }) => {
      const fromWeights = Math.log(weightVariance) + logSquare, total = logSum(fromWeights, Math.log(biasVariance));
      return { logSquare: total, correlation: 1 - (1 - correlation) * Math.exp(fromWeights - total), mean: 0, back: multiple(weightVariance) };
    },
    activate: (name) => ({ logSquare }) => {
      const { logValue, slope, mean } = moments(name, logSquare);
      return { logSquare: logValue, correlation: 1, mean, back: multiple(slope) };
    },
    normalise: (kind) => ({ logSquare, mean }) => {
      const shift = kind === "layer" ? mean ** 2 : 0;
      return { logSquare: 0, correlation: 1, mean: kind === "layer" ? 0 : mean, back: multiple(Math.exp(-logSquare) / (1 - shift)) };
    },
    batchNormalise: (name, size) => ({ logSquare, correlation }) => {
      const { centredTrace, commonTrace, ...after } = activations[number(name)].batches[size];
      const scale = size / (size - 3) / (size - 1) * Math.exp(-logSquare) / (1 - correlation);
      const [same, other] = [scale * (centredTrace + commonTrace), scale * ((size - 1) * commonTrace - centredTrace)];
      return { ...after, back: [[same * (size - 1) / size, other * (size - 1) / size], [-same / size, -other / size]] };
    },
  };

  /* x + α times an independent branch. */
  function added(kernel, branch, scale) {
    const other = branch.logSquare + 2 * Math.log(scale), top = Math.max(kernel.logSquare, other);
    const [x, y] = [kernel.logSquare, other].map((log) => Math.exp((log - top) / 2));
    const square = x * x + y * y + 2 * kernel.mean * branch.mean * x * y;
    const lost = (1 - kernel.correlation) * x * x + (1 - branch.correlation) * y * y;
    return { logSquare: top + Math.log(square), correlation: 1 - lost / square, mean: (kernel.mean * x + branch.mean * y) / Math.sqrt(square) };
  }

  /* The curves that theory predicts for one network: plain, or normalised before φ, with or without skips of one weight. */
  function meanField({ activation, depth, weightVariance, biasVariance = 0, batchSize = 1, normalisation = null, residual = null, residualScale = 1 }) {
    const dense = operations.dense(weightVariance, biasVariance);
    const phi = normalisation === "batch" ? [operations.batchNormalise(activation, batchSize)]
      : [...normalisation ? [operations.normalise(normalisation)] : [], operations.activate(activation)];
    const steps = residual ? [...phi, dense] : [dense, ...phi];
    let kernel = { logSquare: 0, correlation: batchSize > 1 ? 0 : 1, mean: 0 };
    const logVariance = [], logSignal = [0], backs = [];
    for (let layer = 0; layer < depth; layer++) {
      let branch = kernel, back = multiple(1), input;
      steps.forEach((step, i) => {
        if (i === (residual ? 0 : 1)) input = branch.logSquare;
        branch = step(branch);
        back = times(back, branch.back);  // from the top down: the last step comes first
      });
      if (residual) back = back.map((row, i) => row.map((x, j) => (i === j ? 1 : 0) + residualScale ** 2 * x));
      kernel = residual ? added(kernel, branch, residualScale) : branch;
      logVariance.push(input); logSignal.push(kernel.logSquare / 2); backs.push(back);
    }
    const logGradient = new Array(depth + 1).fill(0);
    let products = [1, 0];
    for (let layer = depth - 1; layer >= 0; layer--) {
      const [[a, b], [c, d]] = backs[layer], same = a * products[0] + b * products[1];
      logGradient[layer] = logGradient[layer + 1] + Math.log(same) / 2;
      products = [1, (c * products[0] + d * products[1]) / same];
    }
    return { logGradient, logVariance, logSignal };
  }

  /* Where q settles in a plain network, and what theory says of it there. */
  function settled({ activation, weightVariance, biasVariance }) {
    const logWeights = Math.log(weightVariance), logBiases = Math.log(biasVariance);
    const step = (logQ) => logSum(logWeights + moments(activation, logQ).logValue, logBiases);
    const logQ = fixedPoint(activation, step, logSum(logWeights, logBiases), biasVariance), there = moments(activation, logQ);
    return { qStar: Math.exp(logQ), chi1: weightVariance * there.slope, chiQ: weightVariance * there.growth };
  }

  /* ln q*, where q flows from q_1. */
  function fixedPoint(activation, step, first, biasVariance) {
    const phi = activations[number(activation)], drift = (logQ) => step(logQ) - logQ;
    const lost = phi.vanishesAtZero && biasVariance === 0;
    let here = first, before = first, speed = drift(first);
    const direction = Math.sign(speed);
    while (speed * direction > MARGINAL) {
      if (here > LOG_LARGE) return Infinity;
      if (lost && here < Math.log(1e-10)) return -Infinity;
      before = here; here += direction / 2; speed = drift(here);
    }
    if (Math.abs(speed) <= MARGINAL) return lost && here < first && here < Math.log(1e-4) ? -Infinity : here;
    let low = Math.min(before, here), high = Math.max(before, here);
    for (let i = 0; i < 45; i++) {
      const middle = (low + high) / 2;
      if (drift(middle) > 0) low = middle; else high = middle;
    }
    return (low + high) / 2;
  }

  /* The moments of one activation over a grid of ln q from 1e-12 to 1e8. */
  const tables = {};
  function table(activation) {
    if (!tables[activation]) {
      const rows = [];
      for (let i = 0; i <= 160; i++) {
        const logQ = Math.log(1e-12) + (i / 160) * Math.log(1e20);
        rows.push({ logQ, ...moments(activation, logQ) });
      }
      tables[activation] = rows;
    }
    return tables[activation];
  }

  /* {weightVariance, q} on the critical line χ₁ = 1 for this σ_b², or null: see vgp_kernels.critical_point. */
  function criticalPoint({ activation, biasVariance }) {
    const phi = activations[number(activation)], rows = table(activation);
    const biases = (at) => Math.exp(at.logQ) - Math.exp(at.logValue) / at.slope - biasVariance;
    if (biasVariance === 0 && phi.vanishesAtZero) {
      const at = moments(activation, LOG_SMALL);
      if (Math.abs(Math.exp(at.logValue - LOG_SMALL) / at.slope - 1) < 1e-5) return { weightVariance: 1 / at.slope, q: 0 };
    }
    for (let i = 1; i < rows.length; i++) {
      if (biases(rows[i - 1]) < 0 && biases(rows[i]) >= 0) {
        let low = rows[i - 1].logQ, high = rows[i].logQ;
        for (let k = 0; k < 40; k++) {
          const logQ = (low + high) / 2;
          if (biases({ logQ, ...moments(activation, logQ) }) < 0) low = logQ; else high = logQ;
        }
        return { weightVariance: 1 / moments(activation, low).slope, q: Math.exp(low) };
      }
    }
    return null;
  }

  /* q_{l+1} as a function of q_l. */
  function varianceMap({ activation, weightVariance, biasVariance, largest, points = 48 }) {
    return Array.from({ length: points + 1 }, (_, i) => {
      const q = Math.max((i / points) * largest, largest * 1e-6);
      return [q, weightVariance * Math.exp(moments(activation, Math.log(q)).logValue) + biasVariance];
    });
  }

  return { isFused, propagate, valueAndSlope, moments, meanField, settled, criticalPoint, varianceMap, table: ({ activation }) => table(activation) };
}

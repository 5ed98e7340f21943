/* The kernels, and what theory predicts, as functions for a page. One function without outside names: it runs in a
   worker, in the page and, when the site is built, in V8. Everything is in natural logarithms, as in vgp_kernels. */
function vgpKernels(bytes, activations) {
  const memory = new WebAssembly.Memory({ initial: 16 });
  const stack = new WebAssembly.Global({ value: "i32", mutable: true }, 65536);
  const module = new WebAssembly.Module(bytes);
  const wasm = new WebAssembly.Instance(module, { env: { __linear_memory: memory, __stack_pointer: stack } }).exports;
  const BASE = 131072;  // below: the module's own data and its stack

  function room(doubles) {
    const missing = BASE + 8 * doubles - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  }

  const number = (name) => {
    const index = activations.findIndex((phi) => phi.name === name);
    if (index < 0) throw new Error(`unknown activation ${name}`);
    return index;
  };

  /* Trials first … first + trials - 1 of vgp_kernels.propagate, to the bit: one array per network. */
  function propagate({ activation, depth, width, weightVariance, biasVariance, orthogonal = false, inputWidth = width,
    firstWeightVariance = weightVariance, inputRms = 1, seed = 0, first = 0, trials }) {
    const layers = depth + 1, size = 2 * layers + depth;
    const work = BASE + 8 * size, integers = work + 8 * (11 * layers + 5), singles = integers + 8 * layers;
    room(size + 12 * layers + 16);
    const flow = { logSignal: [], logGradient: [], logWeightGradient: [] };
    const low = seed % 4294967296, high = Math.floor(seed / 4294967296);
    for (let trial = first; trial < first + trials; trial++) {
      wasm.propagate(number(activation), depth, width, inputWidth, weightVariance, firstWeightVariance, biasVariance,
        inputRms, orthogonal ? 1 : 0, low, high, trial, BASE, work, integers, singles);
      const out = new Float64Array(memory.buffer, BASE, size);
      flow.logSignal.push(out.slice(0, layers));
      flow.logGradient.push(out.slice(layers, 2 * layers));
      flow.logWeightGradient.push(out.slice(2 * layers, size));
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

  /* ln E φ², E φ′² and d/dq E φ² at q = e^logQ. */
  function moments(activation, logQ) {
    const index = number(activation), phi = activations[index];
    let near = logQ;
    if (phi.vanishesAtZero) near = Math.max(near, LOG_SMALL);
    if (!phi.isBounded) near = Math.min(near, LOG_LARGE);
    near = Math.min(Math.max(near, -500), 200);
    const root = Math.exp(near / 2);
    wasm.moments(index, root, BASE);
    const [square, slope, growth] = new Float64Array(memory.buffer, BASE, 3);
    const scaled = phi.vanishesAtZero && logQ < near || !phi.isBounded && logQ > near;
    return { logValue: Math.log(square) + (scaled ? logQ - near : 0), slope, growth: growth / root };
  }

  /* Theory for one network: see vgp_kernels.mean_field. */
  function meanField({ activation, depth, width, weightVariance, biasVariance }) {
    const logWeights = Math.log(weightVariance), logBiases = Math.log(biasVariance);
    const step = (logQ) => logSum(logWeights + moments(activation, logQ).logValue, logBiases);
    const first = logSum(logWeights, logBiases);
    const logVariance = [], logValue = [], logSlope = [];
    let current = first, drift = NaN;
    for (let layer = 0; layer < depth; layer++) {
      const here = moments(activation, current);
      logVariance.push(current); logValue.push(here.logValue); logSlope.push(Math.log(here.slope));
      const next = logSum(logWeights + here.logValue, logBiases), before = drift;
      drift = next - current;
      const settled = Math.abs(drift) <= 1e-14 * Math.max(Math.abs(current), 1);
      const outside = current < LOG_SMALL || current > LOG_LARGE;
      if (layer > 1 && (settled || (outside && Math.abs(drift - before) < 1e-12))) {
        for (let more = 1; logVariance.length < depth; more++) {
          logVariance.push(current + (settled ? 0 : more * drift));
          logValue.push(here.logValue + (settled ? 0 : more * drift));
          logSlope.push(Math.log(here.slope));
        }
      }
      if (logVariance.length === depth) break;
      current = next;
    }
    const logGradient = new Array(depth + 1).fill(0);
    for (let layer = depth - 1; layer >= 0; layer--) {
      logGradient[layer] = logGradient[layer + 1] + (logWeights + logSlope[layer]) / 2;
    }
    const logQ = fixedPoint(activation, step, first, biasVariance);
    const there = moments(activation, logQ);
    return {
      logGradient, logVariance, logSignal: [0, ...logValue.map((x) => x / 2)], qStar: Math.exp(logQ),
      chi1: weightVariance * there.slope, chiQ: weightVariance * there.growth,
    };
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

  return { propagate, valueAndSlope, moments, meanField, criticalPoint, varianceMap, table: ({ activation }) => table(activation) };
}

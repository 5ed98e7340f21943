/* Learn 2: a chain of single units. The gradient at its lower end is the product of all weights and slopes above it. */
(() => {
  const { chart, significant, power, phi } = vgpInstruments;
  const LAYERS = 6, LOW = 0.05, HIGH = 4;
  const each = (make) => Array.from({ length: LAYERS }, (_, i) => make(i + 1));
  let lowest = -4;  // of the axis as last drawn
  const axes = () => chart({
    x: [0.4, LAYERS + 0.6], y: [lowest, 2], xLabel: "layer; outlined: its weight, filled: its slope", yLabel: "log₁₀ of the product so far",
    xTicks: each((layer) => [layer, String(layer)]), tick: (v) => String(v).replace("-", "−"),
  });
  const number = (x) => Math.abs(x) < 1e-3 && x !== 0 ? power(x) : significant(x, 3);

  vgpInstruments.add("chain", {
    title: "A chain of six units",
    columns: 6,
    controls: [
      { name: "activation", label: "Activation", row: true, value: "sigmoid", options: VGP_DATA.activations.map((one) => [one.name, one.label]) },
      ...each((layer) => ({ name: `w${layer}`, label: `w${"₀₁₂₃₄₅₆"[layer]}`, min: LOW, max: HIGH, log: true, value: 1, format: (v) => significant(v, 2) })),
      ...each((layer) => ({ name: `z${layer}`, label: `z${"₀₁₂₃₄₅₆"[layer]}`, min: -5, max: 5, step: 0.1, value: 0 })),
    ],
    ask: (state) => ({ units: ["valueAndSlope", { activation: state.activation, z: each((layer) => state[`z${layer}`]) }] }),
    drag(state, x, y) {  // up and down moves the weight, towards the left or right of the layer its pre-activation
      const drawing = axes(), layer = Math.min(Math.max(Math.round(drawing.x(x)), 1), LAYERS), across = drawing.x(x) - layer;
      if (across > 0) state[`z${layer}`] = Number(Math.min(Math.max((drawing.y(y) + 1) / 3 * 5, -5), 5).toFixed(1));
      else state[`w${layer}`] = Number(Math.min(Math.max(10 ** drawing.y(y), LOW), HIGH).toPrecision(3));
    },
    draw(state, { units }) {
      const slopes = units.map((unit) => unit[1]), weights = each((layer) => state[`w${layer}`]);
      const factors = weights.map((weight, i) => weight * slopes[i]);
      // from the top down: what is left at the input of each layer
      const left = factors.map((_, i) => factors.slice(i).reduce((product, factor) => product * factor, 1));
      lowest = Math.min(-4, Math.floor(Math.max(Math.log10(Math.abs(left[0])), -30)) - 1);
      const drawing = axes().rule(0, "axis");
      weights.forEach((weight, i) => drawing.bar(i + 0.66, i + 0.98, 0, Math.log10(weight), "outline"));
      slopes.forEach((slope, i) => { if (slope !== 0) drawing.bar(i + 1.02, i + 1.34, 0, Math.log10(Math.abs(slope)), "fill"); });
      const path = [[LAYERS + 0.5, 0], ...left.map((product, i) => [i + 1, Math.log10(Math.abs(product))]).reverse()];
      drawing.line(path, "predicted");
      path.slice(1).forEach(([layer, height]) => drawing.dot(layer, height, "handle", 6));
      const total = left[0], product = (numbers) => number(numbers.reduce((before, x) => before * x, 1));
      const verb = total === 0 ? "is exactly 0: one slope is 0, and nothing passes" : Math.abs(total) < 0.5 ? "shrinks" : Math.abs(total) > 2 ? "grows" : "about keeps its size";
      return {
        figure: drawing.svg(),
        alt: `Product of six weights and six slopes of ${phi(state.activation).label}: ${number(total)}.`,
        verdict: `<p>Weights multiply to ${product(weights)}, slopes to ${product(slopes)}: together <strong>${number(total)}</strong>. The gradient ${verb}.</p>` +
          `<p class="key">Bars: weights w and slopes φ′(z), each as far up or down as it lengthens or shortens the product. Line: the product from the top down to each layer. Drag left of a layer for its weight, right of it for its pre-activation.</p>`,
        rows: [["Layer", "weight", "pre-activation", "slope", "product down to here"], ...weights.map((weight, i) => [
          i + 1, number(weight), number(state[`z${i + 1}`]), number(slopes[i]), number(left[i])])],
      };
    },
  });
})();

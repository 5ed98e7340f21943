/* Learn 4: σ_w² and σ_b² decide, with φ, where the variance settles and by which factor a layer changes the gradient. */
(() => {
  const { chart, significant, phi, WIDTH } = vgpInstruments;
  const FACTORS = [0.5, 0.65, 0.8, 0.95, 1, 1.1, 1.3];
  // σ_w² is told in units of 1/(largest slope)²
  const unit = (activation) => activation.endsWith("sigmoid") ? 16 : 1;
  const plane = (activation) => {
    const range = [0.2 * unit(activation), 8 * unit(activation)], marks = [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100];
    return chart({
      x: range, y: [0, 1], logX: true, xLabel: "weight variance σ_w²", yLabel: "bias variance σ_b²", right: WIDTH / 2 + 10, left: 64,
      xTicks: marks.filter((v) => v >= range[0] && v <= range[1]).map((v) => [v, String(v)]),
    });
  };

  /* Where the factor per layer, √χ₁, has this value: with moments V and S at q, σ_w² = χ/S and σ_b² = q − σ_w² V. */
  function contour(rows, activation, factor) {
    const chi = factor ** 2, last = rows.at(-1);
    if (!phi(activation).isBounded && chi >= 1) return [[chi / last.slope, 0], [chi / last.slope, 1]];
    const points = [];
    let before = null;
    for (const { logQ, logValue, slope, growth } of rows) {
      const weights = chi / slope, biases = Math.exp(logQ) - weights * Math.exp(logValue), stable = weights * growth < 1;
      if (stable && biases >= 0 && biases < 1.5) {
        if (before && before[1] < 0) points.push([before[0] + (weights - before[0]) * before[1] / (before[1] - biases), 0]);
        points.push([weights, biases]);
      }
      before = stable ? [weights, biases] : null;
    }
    return points;
  }

  vgpInstruments.add("phase-diagram", {
    title: "Ordered, critical, chaotic",
    controls: [
      { name: "activation", label: "Activation", value: "tanh", options: VGP_DATA.activations.filter((one) => one.name !== "linear").map((one) => [one.name, one.label]) },
      { name: "weight_variance", label: "Weight variance σ_w²", min: 0.1, max: 200, log: true, value: 1.5, format: (v) => significant(v, 3) },
      { name: "bias_variance", label: "Bias variance σ_b²", min: 0, max: 1, step: 0.01, value: 0.05 },
    ],
    changed(state, name) {
      if (name === "activation") state.weight_variance = 1.5 * unit(state.activation);
    },
    ask(state) {
      const network = { activation: state.activation, weightVariance: state.weight_variance, biasVariance: state.bias_variance };
      return {
        way: ["meanField", { ...network, depth: 12 }],
        theory: ["settled", network],
        table: ["table", { activation: state.activation }],
        map: ["varianceMap", { ...network, largest: 4 * (state.weight_variance + state.bias_variance) }],
      };
    },
    drag(state, x, y) {
      const drawing = plane(state.activation);
      state.weight_variance = Number(Math.min(Math.max(drawing.x(x), 0.1), 200).toPrecision(3));
      state.bias_variance = Number(Math.min(Math.max(drawing.y(y), 0), 1).toFixed(2));
    },
    draw(state, { way, theory, table, map }) {
      if (!way || !theory || !table || !map) return null;
      const drawing = plane(state.activation);
      for (const factor of FACTORS) {
        const points = contour(table, state.activation, factor), name = `×${factor}`;
        if (points.length < 2) continue;
        drawing.line(points, factor === 1 ? "predicted" : "contour");
        const height = 0.95 - 0.13 * (FACTORS.indexOf(factor) % 3);
        const near = points.length > 2 ? points.filter((one) => one[1] <= 1).reduce((a, b) => Math.abs(b[1] - height) < Math.abs(a[1] - height) ? b : a, points[0]) : [points[0][0], height];
        if (near[0] > 0.22 * unit(state.activation) && near[0] < 7 * unit(state.activation)) drawing.text(...near, name, { anchor: "middle" });
      }
      drawing.dot(state.weight_variance, state.bias_variance, "handle", 8);

      // the variance map, and the way of q from its first value
      const qs = way.logVariance.map(Math.exp).filter((q) => q < 1e6);
      const largest = Math.min(map.at(-1)[0], 1.25 * Math.max(...qs.slice(0, 5), Math.min(theory.qStar, 1e5)));
      const web = chart({ x: [0, largest], y: [0, largest], xLabel: "q of this layer", yLabel: "q of the next", left: WIDTH / 2 + 70, right: 14 });
      const cobweb = [[qs[0], 0]];
      qs.slice(0, -1).forEach((q, i) => cobweb.push([q, qs[i + 1]], [qs[i + 1], qs[i + 1]]));
      web.line([[0, 0], [largest, largest]], "reference").line(map.filter((point) => point[0] <= largest), "predicted").line(cobweb, "limit");
      if (theory.qStar <= largest) web.dot(theory.qStar, theory.qStar, "handle", 6);

      const factor = Math.sqrt(theory.chi1), pace = Math.LN2 / Math.abs(Math.log(factor));
      const phase = Math.abs(theory.chi1 - 1) < 1e-3 ? "critical" : theory.chi1 < 1 ? "ordered" : "chaotic";
      const effect = phase === "critical" ? "the gradient neither shrinks nor grows exponentially"
        : `each layer multiplies the gradient's norm by ${significant(factor, 3)}; it ${phase === "ordered" ? "halves" : "doubles"} in ${significant(pace, 2)} layers`;
      const scale = phase === "critical" ? "∞" : significant(-1 / Math.log(theory.chi1), 3);
      return {
        figure: drawing.svg() + web.svg(),
        alt: `Plane of weight and bias variance for ${phi(state.activation).label} with lines of equal factor per layer, and the variance map. ` +
          `The point is ${phase}, with chi 1 = ${significant(theory.chi1, 4)}.`,
        verdict: `<p class="${phase === "ordered" ? "vanishes" : phase === "chaotic" ? "explodes" : "healthy"}"><strong>${phase[0].toUpperCase() + phase.slice(1)}:</strong> ${effect}.</p>` +
          `<p>q* = ${significant(theory.qStar, 4)}, χ₁ = ${significant(theory.chi1, 4)}, depth scale −1/ln χ₁ = ${scale} layers. All predicted, for infinite width.</p>` +
          `<p class="key">Left: drag the point; lines of equal factor per layer, thick where it is 1. Right: the variance map and the way of q, layer by layer.</p>`,
        rows: [["Quantity (predicted)", "value"], ["σ_w²", significant(state.weight_variance, 4)], ["σ_b²", significant(state.bias_variance, 4)],
          ["q*", significant(theory.qStar, 6)], ["χ₁", significant(theory.chi1, 6)], ["factor per layer, √χ₁", significant(factor, 6)], ["depth scale, layers", scale]],
      };
    },
  });
})();

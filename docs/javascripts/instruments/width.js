/* Learn 6: the gradient at the input of many networks of one kind; narrow ones scatter, and their mean is not typical. */
(() => {
  const { chart, significant, quantile, phi } = vgpInstruments;
  const NETWORKS = 400, UNITS = 4e6, BINS = 24;
  const trialsFor = (state) => Math.max(64, Math.min(NETWORKS, Math.round(UNITS / (state.depth * state.width) / 4) * 4));

  vgpInstruments.add("width", {
    title: "Does width matter?",
    controls: [
      { name: "activation", label: "Activation", value: "relu", options: VGP_DATA.activations.map((one) => [one.name, one.label]) },
      { name: "width", label: "Units per layer", min: 4, max: 512, log: true, whole: true, value: 16 },
      { name: "depth", label: "Layers", min: 2, max: 100, step: 1, value: 30 },
    ],
    ask(state) {
      const critical = { relu: 2, leaky_relu: 2, sigmoid: 16, centred_sigmoid: 16 }[state.activation] || 1;
      const network = { activation: state.activation, depth: state.depth, width: state.width, weightVariance: critical, biasVariance: 0 };
      return { theory: ["meanField", network], flow: ["propagate", { ...network, trials: trialsFor(state), seed: 0 }] };
    },
    draw(state, { theory, flow }) {
      if (!theory || !flow) return null;
      const logs = flow.logGradient.map((one) => one[0] / Math.LN10), alive = logs.filter(Number.isFinite).sort((a, b) => a - b);
      const predicted = theory.logGradient[0] / Math.LN10;
      if (!alive.length) return null;
      const centre = quantile(alive, 0.5), reach = Math.max(1, Math.abs(predicted - centre) * 1.3, 3.5 * (quantile(alive, 0.84) - centre));
      const low = centre - reach, size = 2 * reach / BINS;
      const counts = new Array(BINS).fill(0);
      for (const value of alive) counts[Math.min(Math.max(Math.floor((value - low) / size), 0), BINS - 1)] += 1;
      const tallest = Math.max(...counts) * 1.15;
      const drawing = chart({ x: [low, centre + reach], y: [0, tallest], xLabel: "log₁₀ of the gradient's norm at the input", yLabel: "networks" });
      counts.forEach((count, i) => { if (count) drawing.bar(low + i * size + size * 0.06, low + (i + 1) * size - size * 0.06, 0, count, "fill"); });
      const rms = Math.log10(alive.reduce((sum, x) => sum + 10 ** (2 * (x - alive.at(-1))), 0) / logs.length) / 2 + alive.at(-1);
      // each label on the side where the other line is not
      const side = (right) => ({ dx: right ? 6 : -6, dy: 14, anchor: right ? "start" : "end" });
      drawing.post(predicted, "limit").text(predicted, tallest, "predicted", side(predicted > centre));
      drawing.post(centre, "reference").text(centre, tallest, "median", side(predicted <= centre));
      const spread = (quantile(alive, 0.9) - quantile(alive, 0.1)), dead = logs.length - alive.length;
      return {
        figure: drawing.svg(),
        networks: logs.length,
        alt: `Histogram of the gradient's norm in ${logs.length} ${phi(state.activation).label} networks of width ${state.width}: median 10 to the ${centre.toFixed(2)}.`,
        verdict: `<p><strong>Half of the networks have less than ${significant(10 ** centre, 2)} of the gradient left;</strong> the root mean square is ${significant(10 ** rms, 2)}, ` +
          `predicted ${significant(10 ** predicted, 2)}. The middle 80 % differ by a factor of ${significant(10 ** spread, 2)}.` +
          (dead ? ` In ${dead} of ${logs.length} it is exactly 0.` : "") + "</p>" +
          `<p class="key">Bars and median: measured in ${logs.length} sampled networks. Predicted: the root mean square. Depth over width is ${significant(state.depth / state.width, 2)}.</p>`,
        rows: [["Quantity", "log₁₀"], ["median, measured", centre.toFixed(4)], ["root mean square, measured", rms.toFixed(4)], ["root mean square, predicted", predicted.toFixed(4)],
          ["10 %", quantile(alive, 0.1).toFixed(4)], ["90 %", quantile(alive, 0.9).toFixed(4)]],
      };
    },
  });
})();

/* Fix 14: batch normalisation before ReLU, without skips: the gradient grows from layer to layer, whatever the weights. */
(() => {
  const { chart, significant, tenTo, quantile } = vgpInstruments;
  const NETWORKS = 4, WIDTH = 64, LN10 = Math.LN10;
  const bare = (state) => ({ activation: "relu", depth: state.depth, width: WIDTH, weightVariance: state.weight_variance });
  const network = (state) => ({ ...bare(state), normalisation: "batch", batchSize: Number(state.batch) });

  vgpInstruments.add("batch-norm-depth", {
    title: "How deep may a batch-normalised network be?",
    controls: [
      { name: "depth", label: "Layers", min: 2, max: 100, step: 1, value: 50 },
      { name: "batch", label: "Inputs in a batch", value: "16", options: ["8", "16", "32"].map((size) => [size, size]) },
      { name: "weight_variance", label: "Weight variance σ_w²", min: 0.5, max: 4, step: 0.1, value: 1 },
    ],
    ask: (state) => ({
      theory: ["meanField", network(state)], without: ["meanField", bare(state)],
      flow: ["propagate", { ...network(state), trials: NETWORKS, seed: 0 }],
    }),
    draw(state, { theory, without, flow }) {
      if (!theory || !without) return null;
      const below = (logs) => Array.from(logs, (x, layer) => [state.depth - layer, x / LN10]);
      const [total, other] = [theory, without].map((one) => one.logGradient[0] / LN10), measured = (flow?.logGradient ?? []).map(below);
      const ends = measured.map((one) => one[0][1]).sort((a, b) => a - b), high = Math.max(3, total, other, ends.at(-1) ?? 0) * 1.1;
      const drawing = chart({ x: [0, state.depth], y: [Math.min(-2, other * 1.05), high], xLabel: "layers below the top", yLabel: "log₁₀ of the gradient's norm" });
      drawing.line(below(without.logGradient), "reference").text(state.depth, other, "without", { anchor: "end", dx: -4, dy: other > 0 ? 18 : -8 });
      measured.forEach((one) => drawing.line(one, "measured"));
      drawing.line(below(theory.logGradient), "predicted").text(state.depth * 0.72, total * 0.72, "with batch normalisation", { anchor: "end", dx: -14, dy: -6 });
      const said = (decades) => Math.abs(decades) < 3 ? significant(10 ** decades, 3) : tenTo(decades);
      // between the ends: the batch's inputs are uncorrelated at one, the gradients at the other
      const middle = Math.floor(state.depth / 2), factor = Math.exp(theory.logGradient[middle - 1] - theory.logGradient[middle]);
      const median = ends.length ? quantile(ends, 0.5) : null;
      return {
        figure: drawing.svg(),
        networks: measured.length,
        alt: `Batch normalisation with ReLU: ${state.depth} layers multiply the gradient by 10 to the ${total.toFixed(1)}; without it, by 10 to the ${other.toFixed(1)}.`,
        verdict: `<p class="${total > 1.5 ? "explodes" : "healthy"}"><strong>With batch normalisation ${state.depth} layers multiply the gradient by ${said(total)};</strong> without it, by ${said(other)}. ` +
          `It grows by ${significant(factor, 3)} per layer whatever the weights' variance: the normalisation divides it out. ` +
          `In large batches it still grows by √(π/(π − 1)) = ${significant(Math.sqrt(Math.PI / (Math.PI - 1)), 3)}.</p>` +
          `<p class="key">Thick and dashed: predicted for infinite width, ReLU, no skips. Thin: measured in ${NETWORKS} sampled networks of width ${WIDTH}.</p>`,
        rows: [["Network", "factor per layer", "after all layers, log₁₀"], ["batch normalisation, predicted", significant(factor, 5), total.toFixed(3)],
          ["batch normalisation, measured median", "", median === null ? "" : median.toFixed(3)], ["without, predicted", significant(Math.sqrt(state.weight_variance / 2), 5), other.toFixed(3)]],
      };
    },
  });
})();

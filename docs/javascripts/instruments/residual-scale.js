/* Fix 15: a block x + α W φ(x) multiplies the squared gradient by 1 + α²χ, χ = σ_w² E φ′²; that of ReLU is σ_w²/2. */
(() => {
  const { chart, significant, tenTo, quantile } = vgpInstruments;
  const NETWORKS = 8, WIDTH = 64, LN10 = Math.LN10;
  const network = (state) => ({
    activation: "relu", depth: state.blocks, width: WIDTH, weightVariance: state.weight_variance, residual: "preactivation", residualScale: state.alpha,
  });

  vgpInstruments.add("residual-scale", {
    title: "How large may a residual branch be?",
    controls: [
      { name: "alpha", label: "Branch scale α", min: 0.01, max: 2, log: true, value: 1, format: (v) => significant(v, 2) },
      { name: "blocks", label: "Blocks", min: 2, max: 1000, log: true, whole: true, value: 100 },
      { name: "weight_variance", label: "Weight variance σ_w²", min: 0.2, max: 4, step: 0.1, value: 2 },
    ],
    ask: (state) => ({ theory: ["meanField", network(state)], flow: ["propagate", { ...network(state), trials: NETWORKS, seed: 0 }] }),
    draw(state, { theory, flow }) {
      if (!theory) return null;
      const chi = state.weight_variance / 2, rate = (alpha) => Math.log10(1 + alpha ** 2 * chi) / 2, total = theory.logGradient[0] / LN10;
      const bare = state.blocks * Math.log10(state.alpha ** 2 * chi) / 2, safe = 1 / Math.sqrt(state.blocks);
      const measured = (flow?.logGradient ?? []).map((one) => Array.from(one, (x, block) => [state.blocks - block, x / LN10]));
      const ends = measured.map((one) => one[0][1]).sort((a, b) => a - b);
      const high = Math.max(2, total * 1.1, (ends.at(-1) ?? 0) * 1.05), low = -Math.max(2, high * 0.6);
      const drawing = chart({ x: [0, state.blocks], y: [low, high], xLabel: "blocks below the top", yLabel: "log₁₀ of the gradient's norm" });
      const labelled = Math.min(0.3, bare < low ? 0.6 * low / bare : 1), kept = state.blocks * rate(safe);
      drawing.line([[0, 0], [state.blocks, bare]], "reference").text(labelled * state.blocks, labelled * bare, "without skips", { dx: 6, dy: bare < -0.5 ? -4 : 16 });
      drawing.line([[0, 0], [state.blocks, kept]], "contour").text(state.blocks, kept, "α = 1/√blocks", { anchor: "end", dy: total > kept && total < kept + 0.2 * high ? 16 : -8, dx: -4 });
      measured.forEach((one) => drawing.line(one, "measured"));
      drawing.line(theory.logGradient.map((x, block) => [state.blocks - block, x / LN10]), "predicted");
      const said = (decades) => Math.abs(decades) < 3 ? significant(10 ** decades, 3) : tenTo(decades);
      const median = ends.length ? quantile(ends, 0.5) : null;
      return {
        figure: drawing.svg(),
        networks: measured.length,
        alt: `With a skip and α = ${significant(state.alpha)}, ${state.blocks} blocks multiply the gradient by 10 to the ${total.toFixed(2)}.`,
        verdict: `<p class="${total > 1.5 ? "explodes" : "healthy"}"><strong>${state.blocks} blocks multiply the gradient by ${said(total)};</strong> without the skips, by ${said(bare)}. ` +
          `At α = 1/√${state.blocks} = ${significant(safe, 2)} it would be ${said(kept)}.</p>` +
          `<p class="key">Thick: predicted for infinite width, √(1 + α²σ_w²/2) per block x + α W ReLU(x). Thin: measured in ${NETWORKS} sampled networks of width ${WIDTH}.</p>`,
        rows: [["Network", "factor per block", "after all blocks, log₁₀"], ["with skips, predicted", significant(10 ** rate(state.alpha), 5), total.toFixed(3)],
          ["with skips, measured median", "", median === null ? "" : median.toFixed(3)],
          ["without skips, predicted", significant(state.alpha * Math.sqrt(chi), 5), bare.toFixed(3)], ["α = 1/√blocks, predicted", significant(10 ** rate(safe), 5), kept.toFixed(3)]],
      };
    },
  });
})();

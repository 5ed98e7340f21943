/* Fix 15: a block x + α W φ(x) multiplies the squared gradient by 1 + α²χ, χ = σ_w² E φ′². */
(() => {
  const { chart, significant, tenTo } = vgpInstruments;

  vgpInstruments.add("residual-scale", {
    title: "How large may a residual branch be?",
    controls: [
      { name: "alpha", label: "Branch scale α", min: 0.01, max: 2, log: true, value: 1, format: (v) => significant(v, 2) },
      { name: "blocks", label: "Blocks", min: 2, max: 1000, log: true, whole: true, value: 100 },
      { name: "chi", label: "χ of the branch", min: 0.1, max: 2, step: 0.05, value: 1 },
    ],
    ask: () => ({}),
    draw(state) {
      const rate = (alpha) => Math.log10(1 + alpha ** 2 * state.chi) / 2, total = state.blocks * rate(state.alpha);
      const bare = state.blocks * Math.log10(state.alpha ** 2 * state.chi) / 2, safe = 1 / Math.sqrt(state.blocks);
      const high = Math.max(2, total * 1.1), low = -Math.max(2, high * 0.6);
      const drawing = chart({ x: [0, state.blocks], y: [low, high], xLabel: "blocks below the top", yLabel: "log₁₀ of the gradient's norm" });
      drawing.line([[0, 0], [state.blocks, bare]], "reference");
      drawing.line([[0, 0], [state.blocks, state.blocks * rate(safe)]], "contour").text(state.blocks, state.blocks * rate(safe), "α = 1/√blocks", { anchor: "end", dy: -8, dx: -4 });
      drawing.line([[0, 0], [state.blocks, total]], "predicted");
      const said = (decades) => Math.abs(decades) < 3 ? significant(10 ** decades, 3) : tenTo(decades);
      return {
        figure: drawing.svg(),
        alt: `With a skip and α = ${significant(state.alpha)}, ${state.blocks} blocks multiply the gradient by 10 to the ${total.toFixed(2)}.`,
        verdict: `<p class="${total > 1.5 ? "explodes" : "healthy"}"><strong>${state.blocks} blocks multiply the gradient by ${said(total)};</strong> without the skip, by ${said(bare)}. ` +
          `At α = 1/√${state.blocks} = ${significant(safe, 2)} it would be ${said(state.blocks * rate(safe))}.</p>` +
          `<p class="key">Predicted for infinite width, root mean square: each block gives √(1 + α²χ). Dashed: the branch alone. Thin: α = 1/√blocks.</p>`,
        rows: [["Network (predicted)", "factor per block", "after all blocks, log₁₀"], ["with skip", significant(10 ** rate(state.alpha), 5), total.toFixed(3)],
          ["without skip", significant(state.alpha * Math.sqrt(state.chi), 5), bare.toFixed(3)], ["α = 1/√blocks", significant(10 ** rate(safe), 5), (state.blocks * rate(safe)).toFixed(3)]],
      };
    },
  });
})();

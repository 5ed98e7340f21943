/* Fix 14: batch normalisation before ReLU, without skips: the squared gradient grows by π/(π − 1) per layer. */
(() => {
  const { chart, significant, tenTo } = vgpInstruments;
  const RATE = Math.log10(Math.PI / (Math.PI - 1)) / 2;  // Yang et al. 2019, "A mean field theory of batch normalization"

  vgpInstruments.add("batch-norm-depth", {
    title: "How deep may a batch-normalised network be?",
    controls: [
      { name: "depth", label: "Layers", min: 2, max: 300, step: 1, value: 50 },
      { name: "chi", label: "χ₁ without normalisation", min: 0.3, max: 1.7, step: 0.05, value: 0.5 },
    ],
    ask: () => ({}),
    draw(state) {
      const total = state.depth * RATE, without = state.depth * Math.log10(state.chi) / 2;
      const drawing = chart({ x: [0, state.depth], y: [Math.min(-2, without * 1.05), Math.max(3, total * 1.1, without * 1.05)], xLabel: "layers below the top", yLabel: "log₁₀ of the gradient's norm" });
      drawing.line([[0, 0], [state.depth, without]], "reference").text(state.depth, without, "without", { anchor: "end", dx: -4, dy: -8 });
      drawing.line([[0, 0], [state.depth, total]], "predicted").text(state.depth, total, "with batch normalisation", { anchor: "end", dx: -14, dy: -6 });
      const said = (decades) => Math.abs(decades) < 3 ? significant(10 ** decades, 3) : tenTo(decades);
      return {
        figure: drawing.svg(),
        alt: `Batch normalisation with ReLU: ${state.depth} layers multiply the gradient by 10 to the ${total.toFixed(1)}; without it, by 10 to the ${without.toFixed(1)}.`,
        verdict: `<p class="${total > 1.5 ? "explodes" : "healthy"}"><strong>With batch normalisation ${state.depth} layers multiply the gradient by ${said(total)};</strong> without it, by ${said(without)}. ` +
          `It grows by ${significant(10 ** RATE, 4)} per layer whatever the weights' variance: the normalisation cancels it.</p>` +
          `<p class="key">Predicted for large batches and infinite width, ReLU, no skips: √(π/(π − 1)) per layer.</p>`,
        rows: [["Network (predicted)", "factor per layer", "after all layers, log₁₀"], ["batch normalisation, ReLU", significant(10 ** RATE, 5), total.toFixed(3)], ["without", significant(Math.sqrt(state.chi), 5), without.toFixed(3)]],
      };
    },
  });
})();

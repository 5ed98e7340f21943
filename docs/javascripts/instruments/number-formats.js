/* Learn 8: at a constant factor per layer, the layer at which each number format rounds the gradient to zero. */
(() => {
  const { chart, significant, superscript } = vgpInstruments;
  // half of the smallest positive number: what rounds to zero
  const FORMATS = [["fp16", 25], ["bf16", 134], ["fp32", 150], ["fp64", 1075]];

  vgpInstruments.add("number-formats", {
    title: "When do the numbers die?",
    controls: [
      { name: "factor", label: "Factor per layer", min: 0.05, max: 0.99, step: 0.01, value: 0.25 },
      { name: "start", label: "Gradient at the top, 10 to the", min: -6, max: 2, step: 0.5, value: -2 },
      { name: "scale", label: "Loss scale, 2 to the", min: 0, max: 24, step: 1, value: 0 },
    ],
    ask: () => ({}),
    draw(state) {
      const start = state.start + state.scale * Math.log10(2), rate = Math.log10(state.factor);
      const horizons = FORMATS.map(([name, bits]) => {
        const limit = -bits * Math.log10(2);
        return { name, bits, limit, layers: Math.max(0, Math.ceil((limit - start) / rate)) };
      });
      const depth = Math.max(...horizons.slice(0, 3).map((one) => one.layers), 10) * 1.15;
      const drawing = chart({ x: [0, depth], y: [-52, Math.max(start, 0) + 4], xLabel: "layers below the top", yLabel: "log₁₀ of a gradient entry" });
      for (const { name, limit, layers } of horizons.slice(0, 3)) {
        drawing.rule(limit, "limit").text(0, limit, `${name} rounds to 0`, { dx: 6, dy: name === "bf16" ? -6 : name === "fp32" ? 16 : -6 });
        if (layers > 0) drawing.dot(layers, limit, "handle", 6);
      }
      drawing.line([[0, start], [depth, start + depth * rate]], "predicted");
      return {
        figure: drawing.svg(),
        alt: horizons.map(({ name, layers }) => `${name} holds ${layers} layers`).join("; ") + ".",
        verdict: `<p><strong>Zero after ${horizons.map(({ name, layers }) => `${layers} layers in ${name}`).join(", ")}.</strong></p>` +
          `<p class="key">Computed, not measured: the entry is start × factor to the power of the layers; it counts as zero below half of the format's smallest number. Hardware that flushes subnormal numbers loses it earlier.</p>`,
        rows: [["Format", "rounds to 0 below", "layers"], ...horizons.map(({ name, bits, layers }) => [name, `2${superscript(-bits)}`, layers])],
      };
    },
  });
})();

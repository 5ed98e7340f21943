/* Learn 8: at a constant factor per layer, the layer at which each number format rounds the gradient to zero, by doing the arithmetic. */
(() => {
  const { chart, significant, superscript } = vgpInstruments;
  // bits of the significand, the exponents of the smallest and of the largest normal numbers
  const FORMATS = [["fp16", 11, -14, 15], ["bf16", 8, -126, 127], ["fp32", 24, -126, 127], ["fp64", 53, -1022, 1023]]
    .map(([name, precision, smallest, largest]) => ({ name, precision, smallest, largest }));

  /* The number of the format nearest to x ≥ 0, ties to even. */
  function rounded({ precision, smallest, largest }, x) {
    if (precision === 53 || x === 0) return x;
    let exponent = Math.floor(Math.log2(x));
    if (2 ** exponent > x) exponent -= 1;
    const unit = 2 ** (Math.max(exponent, smallest) - precision + 1), whole = Math.floor(x / unit), rest = x / unit - whole;
    const nearest = (whole + (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? 1 : 0)) * unit;
    return nearest < 2 ** (largest + 1) ? nearest : Infinity;
  }

  /* x ← rx in the format, until it is 0 or no longer changes. */
  function steps(format, start, factor) {
    const ratio = rounded(format, factor), values = [rounded(format, start)];
    for (;;) {
      const before = values.at(-1), after = rounded(format, before * ratio);
      if (after === before) return { values, zero: null };
      values.push(after);
      if (after === 0) return { values, zero: values.length - 1 };
    }
  }

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
      const found = FORMATS.map((format) => ({ ...format, ...steps(format, 10 ** start, state.factor), bits: format.precision - format.smallest }));
      const guide = ({ bits }) => Math.max(0, Math.ceil((-bits * Math.log10(2) - start) / rate));
      const depth = Math.max(...found.slice(0, 3).map(guide), 10) * 1.15;
      const drawing = chart({ x: [0, depth], y: [-52, Math.max(start, 0) + 4], xLabel: "layers below the top", yLabel: "log₁₀ of a gradient entry" });
      drawing.line([[0, start], [depth, start + depth * rate]], "predicted");
      for (const one of found.slice(0, 3)) {
        const { name, values, zero, bits } = one, left = guide(one) > depth / 2;  // the label's end is the one away from the line
        const limit = -bits * Math.log10(2), path = values.flatMap((x, layer) => x > 0 && x < Infinity && layer <= depth ? [[layer, Math.log10(x)]] : []);
        drawing.rule(limit, "limit")
          .text(left ? 0 : depth, limit, `${name} rounds to 0`, { anchor: left ? "start" : "end", dx: left ? 6 : -4, dy: name === "fp32" ? 16 : -6 });
        if (path.length && zero === null && path.length < depth) path.push([depth, path.at(-1)[1]]);
        drawing.line(path, "reference");
        if (zero > 0) drawing.dot(zero, limit, "handle", 6);
      }
      const ending = ({ name, values, zero }) => values[0] === Infinity ? `${name} overflows at the top`
        : zero === null ? `${name} never reaches 0: it stalls at ${significant(values.at(-1), 2)}` : `${name} is 0 after ${zero} layers`;
      return {
        figure: drawing.svg(),
        alt: found.map(ending).join("; ") + ".",
        verdict: `<p><strong>${found.map(ending).join("; ")}.</strong></p>` +
          `<p class="key">Solid: the exact product. Dashed: the multiplications done in each format, rounded to nearest; dots where the result is 0. Above ½ the smallest numbers round back to themselves. ` +
          `Hardware that flushes subnormal numbers loses them earlier.</p>`,
        rows: [["Format", "rounds to 0 up to", "layers by logarithm", "layers, multiplied"], ...found.map((one) => [
          one.name, `2${superscript(-one.bits)}`, guide(one), one.values[0] === Infinity ? "overflow" : one.zero ?? "stalls"])],
      };
    },
  });
})();

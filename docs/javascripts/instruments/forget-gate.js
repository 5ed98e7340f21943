/* Fix 18: along an LSTM's cell state the gradient is multiplied by the forget gate at every step. */
(() => {
  const { chart, significant, tenTo } = vgpInstruments;
  const gate = (bias) => 1 / (1 + Math.exp(-bias));
  const compared = [0, 1, 2, 4];

  vgpInstruments.add("forget-gate", {
    title: "How long does a forget gate remember?",
    controls: [
      { name: "bias", label: "Forget bias", min: -1, max: 7, step: 0.1, value: 1 },
      { name: "steps", label: "Time steps", min: 10, max: 1000, log: true, whole: true, value: 100 },
    ],
    ask: () => ({}),
    draw(state) {
      const decades = (bias) => state.steps * Math.log10(gate(bias)), here = decades(state.bias);
      const drawing = chart({ x: [0, state.steps], y: [Math.min(-3, here * 1.1), 0.5], xLabel: "steps back in time", yLabel: "log₁₀ of ∏ f along the cell state" });
      for (const bias of compared) {
        drawing.line([[0, 0], [state.steps, decades(bias)]], "contour");
        const shown = Math.min(1, drawing.y(270) / decades(bias)) * 0.94;
        drawing.text(shown * state.steps, shown * decades(bias), `bias ${bias}`, { anchor: "middle", dy: -4 });
      }
      drawing.line([[0, 0], [state.steps, here]], "predicted");
      const f = gate(state.bias), half = Math.LN2 / -Math.log(f), enough = Math.log(1 / (Math.exp(Math.LN2 / state.steps) - 1));
      return {
        figure: drawing.svg(),
        alt: `With forget bias ${state.bias} the gate is ${significant(f)}, and ${state.steps} steps leave 10 to the ${here.toFixed(1)}.`,
        verdict: `<p><strong>The gate stands at ${significant(f, 3)}: half is forgotten in ${significant(half, 2)} steps.</strong> ${state.steps} steps leave ` +
          `${here > -2 ? significant(10 ** here, 2) : tenTo(here)}. To keep half over ${state.steps} steps the bias must be ${significant(enough, 2)}.</p>` +
          `<p class="key">Computed, not measured: the gate is taken at its bias, σ(bias), at every step, and only the direct path along the cell state is counted.</p>`,
        rows: [["Forget bias", "gate", "half-life, steps", `left after ${state.steps} steps, log₁₀`], ...[state.bias, ...compared].map((bias) => [
          bias, significant(gate(bias), 4), significant(Math.LN2 / -Math.log(gate(bias)), 3), decades(bias).toFixed(2)])],
      };
    },
  });
})();

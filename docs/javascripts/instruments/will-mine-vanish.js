/* Home: depth, width, activation, initialiser, norm and skips → the gradient at every layer, a verdict, what to change. */
(() => {
  const { chart, significant, tenTo, quantile, escape, phi } = vgpInstruments;
  const NETWORKS = 32, DRAWN = 8, BATCH = 16, LN10 = Math.LN10;
  const DEAREST = 60_000;  // units for which a batch is sampled in a page
  // the largest positive number that each format rounds to zero: half of the smallest it has
  const FORMATS = [["fp16", -25], ["bf16", -134], ["fp32", -150]].map(([name, bits]) => [name, bits * Math.LN2]);
  const custom = "custom", none = "none";
  const NORMS = [[none, "none"], ["layer", "layer norm"], ["rms", "RMS norm"], ["batch", `batch norm, ${BATCH} inputs`]];

  const law = (state) => VGP_DATA.initialisers.find((one) => one.name === state.initialiser);
  const varianceOf = (state) => {
    const rule = law(state);
    return rule ? rule.constant + rule.perUnit * state.width : state.weight_variance;
  };
  const skips = (state) => state.residual !== none, normed = (state) => state.normalisation !== none;
  const batchSize = (state) => state.normalisation === "batch" ? BATCH : 1;
  const network = (state) => ({
    activation: state.activation, depth: state.depth, width: state.width, weightVariance: varianceOf(state),
    biasVariance: state.bias_variance, orthogonal: law(state)?.law === "orthogonal", batchSize: batchSize(state),
    ...normed(state) ? { normalisation: state.normalisation } : {},
    ...skips(state) ? { residual: state.residual, residualScale: state.residual_scale } : {},
  });
  // a batch costs a thousand times as much as one input
  const trials = (state) => batchSize(state) === 1 ? NETWORKS : state.width * state.depth <= DEAREST ? 4 : 0;
  const safe = (state) => Number((1 / Math.sqrt(state.depth)).toPrecision(2));

  function changed(state, name) {
    if (name === "weight_variance") state.initialiser = custom;
    else if (law(state)) state.weight_variance = Number(varianceOf(state).toPrecision(4));
    if (skips(state)) state.bias_variance = 0;
    else state.residual_scale = 1;
  }

  function code(state) {
    const chosen = law(state) ? `"${state.initialiser}"` : `weight_variance=${state.weight_variance}`;
    const options = [
      ...state.bias_variance ? [`bias_variance=${state.bias_variance}`] : [],
      ...batchSize(state) > 1 ? [`batch_size=${BATCH}`] : [],
      ...normed(state) ? [`normalisation="${state.normalisation}"`] : [],
      ...skips(state) ? [`residual="${state.residual}"`, `residual_scale=${state.residual_scale}`] : [],
    ].map((option) => `,\n    ${option}`).join("");
    return "from vgp_kernels import Network, mean_field, propagate\n" +
      `network = Network(${state.depth}, ${state.width}, "${state.activation}", ${chosen}${options})\n` +
      `mean_field(network).log_gradient\npropagate(network, trials=${trials(state) || 4}, seed=0).log_gradient`;
  }

  const times = (decades) => Math.abs(decades) < 2 ? significant(10 ** decades, 2) : tenTo(decades);
  const printed = (lines) => `<pre><code tabindex="0">${escape(lines)}</code></pre>`;

  /* What trains, the most useful first: [words, what to set]. */
  function offers(state) {
    const plain = { normalisation: none, residual: none, residual_scale: 1, bias_variance: 0 }, blocks = { ...plain, residual: "preactivation" };
    return [
      ...state.activation === "sigmoid" ? [["the sigmoid less ½, with σ_w² = 16", { ...plain, activation: "centred_sigmoid", initialiser: custom, weight_variance: 16 }]] : [],
      ["ReLU with He’s weights", { ...plain, activation: "relu", initialiser: "he" }],
      ["a norm before each activation, and skips", { ...blocks, normalisation: "layer" }],
      [`skips, with branches times 1/√${state.depth}`, { ...blocks, residual_scale: safe(state) }],
    ].map(([words, set]) => [words, { ...state, ...set }]);
  }

  const link = (state) => "?" + Object.entries(state).map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&amp;");
  const decadesOf = (found) => found.logGradient[0] / LN10;

  function advice(state, critical, found) {
    const good = offers(state).map(([words, set], i) => [words, set, decadesOf(found[i])]).filter(([, , decades]) => Math.abs(decades) <= 1.5);
    const listed = good.map(([words, set, decades]) => `<li><a class="try" href="${link(set)}">Try ${words}</a>: ${times(decades)} of the gradient arrives.</li>`).join("");
    const own = critical && critical.weightVariance <= 50 && critical.weightVariance;
    const first = state.activation === "sigmoid" ? 16 : own;
    const weights = !first || skips(state) || normed(state) ? "" : `<p>${state.activation === "sigmoid" ? "The weights of the first:"
      : `Or keep ${phi(state.activation).label}, with the weights that neither shrink nor grow it, σ_w² = ${significant(first, 4)}:`}</p>` + printed(
      `PyTorch  torch.nn.init.normal_(layer.weight, std=${significant(Math.sqrt(first), 4)} / layer.in_features**0.5)\n` +
      `Keras    keras.initializers.VarianceScaling(${significant(first, 4)}, "fan_in", "untruncated_normal")\n` +
      `JAX      jax.nn.initializers.variance_scaling(${significant(first, 4)}, "fan_in", "normal")`);
    return (listed ? `<p>What helps, and what theory expects of it:</p><ol>${listed}</ol>` : "") + weights;
  }

  function deaths(state, logGradient) {
    const perEntry = logGradient.map((x) => x - Math.log(state.width * batchSize(state)) / 2);
    const found = FORMATS.map(([name, limit]) => {
      for (let layer = state.depth; layer >= 0; layer--) if (perEntry[layer] < limit) return `${name} at layer ${layer}`;
      return null;
    }).filter(Boolean);
    return found.length ? ` A typical entry becomes zero in ${found.join(", in ")}, counting down from ${state.depth}.` : "";
  }

  vgpInstruments.add("will-mine-vanish", {
    title: "Will mine vanish?",
    address: true,
    controls: [
      { name: "activation", label: "Activation", value: "sigmoid", options: VGP_DATA.activations.map((one) => [one.name, one.label]) },
      { name: "initialiser", label: "Initialiser", value: "xavier", options: [...VGP_DATA.initialisers.map((one) => [one.name, one.label]), [custom, "my own σ_w²"]] },
      { name: "normalisation", label: "Norm before the activation", value: none, options: NORMS },
      { name: "depth", label: "Layers", min: 2, max: 200, step: 1, value: 50 },
      { name: "width", label: "Units per layer", min: BATCH, max: 1024, log: true, whole: true, value: 256 },
      { name: "residual", label: "Skip connections", value: none, options: [[none, "none"], ["preactivation", "x + α W φ(x)"]] },
      { name: "weight_variance", label: "Weight variance σ_w²", min: 0.05, max: 50, log: true, value: 1, format: (v) => significant(v, 3) },
      { name: "bias_variance", label: "Bias variance σ_b²", min: 0, max: 1, step: 0.01, value: 0, off: skips },
      { name: "residual_scale", label: "Branch scale α", min: 0.01, max: 2, log: true, value: 1, format: (v) => significant(v, 2), off: (state) => !skips(state) },
    ],
    changed,
    ask(state) {
      return {
        theory: ["meanField", network(state)],
        ...Object.fromEntries(offers(state).map(([, set], i) => [`offer${i}`, ["meanField", network(set)]])),
        ...skips(state) || normed(state) ? {} : { critical: ["criticalPoint", { activation: state.activation, biasVariance: state.bias_variance }] },
        ...trials(state) ? { flow: ["propagate", { ...network(state), trials: trials(state), seed: 0 }] } : {},
      };
    },
    draw(state, { theory, critical, flow, ...answers }) {
      const found = offers(state).map((_, i) => answers[`offer${i}`]);
      if (!theory || !found.every(Boolean)) return null;
      const layers = Array.from({ length: state.depth + 1 }, (_, layer) => layer), unit = skips(state) ? "block" : "layer";
      const measured = flow ? flow.logGradient.map((one) => Array.from(one, (x) => x / LN10)) : [];
      const sorted = layers.map((layer) => measured.map((one) => one[layer]).filter(Number.isFinite).sort((a, b) => a - b));
      const band = (share) => layers.filter((layer) => sorted[layer].length).map((layer) => [layer, quantile(sorted[layer], share)]);
      const predicted = theory.logGradient.map((x) => x / LN10);
      const ends = [...predicted, ...sorted.map((one) => one[0]), ...sorted.map((one) => one.at(-1))].filter(Number.isFinite);
      const low = Math.min(-2, ...ends), high = Math.max(2, ...ends), room = (high - low) * 0.04;
      const drawing = chart({
        x: [0, state.depth], y: [low - room, high + room], xLabel: `${unit} (0 is the input, ${state.depth} the top)`,
        yLabel: "log₁₀ of the gradient's norm",
      });
      for (const [name, limit] of FORMATS) {
        const height = (limit + Math.log(state.width * batchSize(state)) / 2) / LN10;
        if (height <= low) continue;
        // at the end that the curve is further from, and bf16's above its line where fp32's is below: they are close
        const left = predicted.filter((x) => x < height).length > state.depth / 2;
        drawing.rule(height, "limit").text(left ? 0 : state.depth, height, `${name} reaches 0`,
          { anchor: left ? "start" : "end", dx: left ? 6 : -4, dy: name === "fp32" ? 16 : -6 });
      }
      if (measured.length > DRAWN) drawing.area(band(0.9), band(0.1), "band");
      measured.slice(0, DRAWN).forEach((one) => drawing.line(one.map((x, layer) => [layer, x]), "measured"));
      drawing.line(predicted.map((x, layer) => [layer, x]), "predicted");

      // the factor per layer over the lower half, where the signal has settled; with skips it is another in the upper half
      const half = Math.floor(state.depth / 2), logs = theory.logGradient, decades = predicted[0];
      const rate = (logs[0] - logs[half]) / half || 0, factor = Math.exp(rate);
      const steady = Math.abs(logs[half] / (state.depth - half) - rate) < Math.abs(rate) / 5;
      const vanishes = decades < -1.5, explodes = decades > 1.5;
      const layersPer = significant(Math.LN2 / Math.abs(Math.log(factor)), 2);
      const word = vanishes ? "It vanishes" : explodes ? "It explodes" : "Healthy";
      const pace = Math.abs(Math.log(factor)) < 1e-3 ? "It changes more slowly than exponentially."
        : `${steady ? "Each" : "In the lower half each"} ${unit} multiplies the gradient by ${significant(factor, 3)}: it ${factor < 1 ? "halves" : "doubles"} in ${layersPer} ${unit}s.`;
      const total = decades <= 0 ? `${state.depth} ${unit}s leave ${times(decades)} of it.` : `${state.depth} ${unit}s multiply it by ${times(decades)}.`;
      const middle = sorted[0].length ? quantile(sorted[0], 0.5) : null;
      const kind = vanishes ? "vanishes" : explodes ? "explodes" : "healthy", count = trials(state);
      const sampled = !count ? "So many units with a batch are not sampled in a page: the command below does it."
        : count > DRAWN ? `Thin lines and band: ${DRAWN} and the middle 80 % of ${count} sampled networks.` : `Thin lines: ${count} sampled networks.`;
      return {
        figure: drawing.svg(),
        networks: measured.length,
        alt: `Gradient norm by ${unit} for ${phi(state.activation).label}: predicted 10 to the ${decades.toFixed(1)} at the input` +
          (middle === null ? "." : `, median of ${measured.length} networks 10 to the ${middle.toFixed(1)}.`),
        verdict: `<p class="${kind}"><strong>${word}.</strong> ${pace} ${total}${deaths(state, theory.logGradient)}</p>` +
          `<p class="key">Thick line: predicted for infinite width. ${sampled}</p>` +
          (vanishes || explodes ? advice(state, critical, found) : "") +
          `<details class="code"><summary>The same numbers in Python</summary>${printed(code(state))}</details>`,
        rows: [["Layer", "predicted, log₁₀", "median", "10 %", "90 %"], ...layers.filter((layer) => layer % Math.ceil(state.depth / 10) === 0 || layer === state.depth).map((layer) => [
          layer, predicted[layer].toFixed(3), ...[0.5, 0.1, 0.9].map((share) => sorted[layer].length ? quantile(sorted[layer], share).toFixed(3) : ""),
        ])],
      };
    },
  });
})();

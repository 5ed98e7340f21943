// The page's reader of gradients.json: log₁₀ of |∂E/∂W|/|W| by layer, and the factor per layer. Nothing leaves the page.

// {layers: [{name, decades}], factor, used, zeros}: decades is null where the gradient is 0 or not finite.
function fitGradients(text) {
  const rows = JSON.parse(text);
  if (!Array.isArray(rows) || rows.length < 3) throw new Error("A list of at least three layers is needed.");
  const layers = rows.map((row, index) => {
    const weight = Number(row.weight), gradient = Number(row.gradient);
    if (!("weight" in row && "gradient" in row) || !(weight > 0)) throw new Error(`Entry ${index + 1} needs "weight" (above 0) and "gradient".`);
    const ratio = gradient / weight;
    return { name: String(row.name ?? index + 1), decades: ratio > 0 && Number.isFinite(ratio) ? Math.log10(ratio) : null };
  });
  // first and last layer have other widths, and the first sees the data
  const inner = layers.length > 4 ? layers.slice(1, -1) : layers;
  const points = inner.map((layer, index) => [index, layer.decades]).filter(([, y]) => y !== null);
  if (points.length < 2) throw new Error("Fewer than two layers have a gradient that is neither 0 nor infinite.");
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const x0 = mean(points.map(([x]) => x)), y0 = mean(points.map(([, y]) => y));
  const slope = points.reduce((sum, [x, y]) => sum + (x - x0) * (y - y0), 0) / points.reduce((sum, [x]) => sum + (x - x0) ** 2, 0);
  const offset = layers.length > 4 ? 1 : 0;
  return { layers, factor: 10 ** -slope, used: points.length, zeros: layers.filter((layer) => layer.decades === null).length, centre: [x0 + offset, y0] };
}

function gradientSummary(fit) {
  const share = fit.factor ** (fit.layers.length - 1);
  const size = share > 1000 || share < 0.001 ? share.toExponential(1) : share.toPrecision(2);
  const verdict = fit.factor < 0.8 ? "it vanishes" : fit.factor > 1.25 ? "it explodes" : "no sign of vanishing";
  const zeros = fit.zeros ? ` ${fit.zeros} layers have a gradient of 0 or no finite one and are left out.` : "";
  return `Factor per layer ${fit.factor.toPrecision(3)}, fitted to ${fit.used} layers: × ${size} from the last layer to the first; ${verdict}.${zeros}`;
}

function drawGradients(fit, predicted) {
  const width = 640, height = 300, left = 48, bottom = 34;
  const shown = fit.layers.map((layer) => layer.decades).filter((y) => y !== null);
  const low = Math.floor(Math.min(...shown)), high = Math.max(Math.ceil(Math.max(...shown)), low + 1);
  const x = (index) => left + ((width - left - 12) * index) / (fit.layers.length - 1);
  const y = (value) => 10 + ((height - bottom - 10) * (high - value)) / (high - low);
  const line = (factor, dash) => {
    const at = (index) => Math.min(high, Math.max(low, fit.centre[1] - (index - fit.centre[0]) * Math.log10(factor)));
    const path = fit.layers.map((_, index) => `${x(index).toFixed(1)},${y(at(index)).toFixed(1)}`).join(" ");
    return `<polyline points="${path}" fill="none" stroke="currentColor" stroke-width="1.5" ${dash}/>`;
  };
  const step = Math.ceil((high - low) / 8);
  let parts = "";
  for (let tick = low; tick <= high; tick += step) {
    parts += `<line x1="${left}" x2="${width - 12}" y1="${y(tick)}" y2="${y(tick)}" stroke="currentColor" opacity=".15"/>`;
    parts += `<text x="${left - 6}" y="${y(tick) + 4}" text-anchor="end">${String(tick).replace("-", "−")}</text>`;
  }
  parts += line(fit.factor, "") + (predicted > 0 ? line(predicted, 'stroke-dasharray="6 4" opacity=".7"') : "");
  fit.layers.forEach((layer, index) => {
    if (layer.decades !== null) parts += `<circle cx="${x(index)}" cy="${y(layer.decades)}" r="4" fill="var(--md-accent-fg-color)"/>`;
  });
  parts += `<text x="${left}" y="${height - 8}">first layer</text><text x="${width - 12}" y="${height - 8}" text-anchor="end">last layer</text>`;
  return `<svg viewBox="0 0 ${width} ${height}" width="100%" font-size="13" fill="currentColor" aria-hidden="true">${parts}</svg>`;
}

if (typeof document$ !== "undefined") {
  document$.subscribe(() => {
    const reader = document.querySelector("#gradient-reader");
    if (!reader) return;
    const [input, predicted, result, chart] = ["textarea", "input", "output", ".chart"].map((part) => reader.querySelector(part));
    const show = () => {
      try {
        const fit = fitGradients(input.value);
        chart.innerHTML = drawGradients(fit, Number(predicted.value));
        result.textContent = gradientSummary(fit);
      } catch (error) {
        chart.replaceChildren();
        result.textContent = error instanceof SyntaxError ? `This is not JSON: ${error.message}` : error.message;
      }
    };
    input.addEventListener("input", show);
    predicted.addEventListener("input", show);
    show();
  });
}

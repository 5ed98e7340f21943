/* The diagnosis in the page. The rules are doctor.rules.js, translated from vgp_kernels/diagnosis; here is what they stand on: the
   twin of plain.py, Python's own functions, and the reading of JSON with NaN. Nothing leaves the page. */

const vgpPlain = (() => {
  const isText = (x) => typeof x === "string";
  const compareNumbers = (a, b) => a - b;
  const points = (text) => Array.from(text, (character) => character.codePointAt(0));

  function compareLists(a, b) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      if (a[i] !== b[i]) return a[i] - b[i];
    }
    return a.length - b.length;
  }

  // Numbers sort before all characters, by their size.
  function textKey(text) {
    const key = [];
    for (const part of text.match(/[0-9]+|[^0-9]/gu) || []) {
      if (/^[0-9]/.test(part)) key.push(0, Number(part.slice(0, 15)));
      else key.push(1, part.codePointAt(0));
    }
    key.push(1, 32);  // as plain.py ends a name
    return key;
  }

  function sortedBy(rows, key) {
    return rows.map((row) => [key(row.name), row]).sort((a, b) => compareLists(a[0], b[0])).map((pair) => pair[1]);
  }

  function figures(x) {
    if (!Number.isFinite(x)) return String(x);
    if (x === 0) return "0";
    const [mantissa, exponent] = x.toExponential(2).split("e").map(Number);
    if (-5 < exponent && exponent < 6) return exponent < 0 ? trimmed(x.toFixed(2 - exponent)) : trimmed(x.toPrecision(3));
    return `${mantissa}e${exponent}`;
  }

  // Digits of a rounded number, without an exponent and without zeros at the end.
  function trimmed(text) {
    const plain = text.includes("e") ? Number(text).toString() : text;
    return plain.includes(".") ? plain.replace(/\.?0+$/, "") : plain;
  }

  const best = (better) => (first, second) => {
    if (!Array.isArray(first)) return better(second, first) ? second : first;
    let found = first[0];
    for (const value of first) if (better(value, found)) found = value;
    return found;
  };

  return {
    is_number: (x) => typeof x === "number",
    is_text: isText,
    is_list: Array.isArray,
    is_dict: (x) => typeof x === "object" && x !== null && !Array.isArray(x),
    is_finite: Number.isFinite,
    as_float: Number,
    figures,
    naturally_sorted: (rows) => sortedBy(rows, textKey),
    is_alphabetical: (rows) => rows.every((row, i) => !i || compareLists(points(rows[i - 1].name), points(row.name)) <= 0),
    pattern: (name) => name.replace(/(^|[._])[0-9]+/g, "$1#"),
    // Python's own
    len: (x) => x.length,
    range: (...ends) => {
      const [start, stop, step = 1] = ends.length > 1 ? ends : [0, ends[0]], numbers = [];
      for (let i = start; i < stop; i += step) numbers.push(i);
      return numbers;
    },
    enumerate: (list) => list.entries(),
    min: best((a, b) => a < b),
    max: best((a, b) => a > b),
    abs: Math.abs,
    sorted: (numbers) => Array.from(numbers).sort(compareNumbers),
    get: (dict, key) => dict[key] ?? null,  // the rules ask for no key that every object has
    has: (where, what) => (Array.isArray(where) || isText(where) ? where.includes(what) : Object.hasOwn(where, what)),
    append: (list, item) => { list.push(item); },
    join: (separator, list) => list.join(separator),
    lower: (text) => text.toLowerCase(),
    find: (text, part) => text.indexOf(part),
    slice: (x, ...ends) => (!isText(x) ? x.slice(...ends) : x.length <= ends[1] && !ends[0] ? x : Array.from(x).slice(...ends).join("")),
  };
})();

/* The diagnosis of a text: see vgp_kernels.diagnosis.diagnose, which gives the same. */
function vgpDiagnose(text) {
  const rules = vgpRules(vgpPlain);
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    try {  // Python writes NaN and Infinity bare
      value = JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|\bNaN\b|-?\bInfinity\b/g, (part) => (part[0] === '"' ? part : `"${part}"`)));
    } catch {
      return rules.unreadable("This is not JSON: is it the whole file?");
    }
  }
  return rules.decide(value);
}

/* What is shown. All text that comes from a file is set as text, never as HTML. */
const vgpDoctor = (() => {
  const SVG = "http://www.w3.org/2000/svg", LARGEST = 50e6;
  const VERDICTS = { sick: "Found", note: "Odd, perhaps by design", unknown: "Cannot be told", healthy: "Nothing found" };

  function element(name, attributes = {}, ...children) {
    const made = attributes.svg ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (key !== "svg") made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  const shape = (name, attributes, ...children) => element(name, { ...attributes, svg: true }, ...children);

  /* Curves {label, dash, points: [{name, text, y}]} over a common axis; y is log₁₀ or null. The suspects are marked. A bare curve
     has its label beside it in place of points, and is broad, to be seen beneath another. */
  function picture(curves, suspects, axis) {
    const width = 640, height = 280, left = 46, right = 12, top = 10, bottom = 34;
    const ys = curves.flatMap((curve) => curve.points.map((point) => point.y)).filter((y) => y !== null);
    if (!ys.length) return element("p", {}, "There is no finite number above 0 to draw.");
    let low = Math.floor(Math.min(...ys)), high = Math.ceil(Math.max(...ys));
    if (high === low) high = low + 1;
    const count = Math.max(...curves.map((curve) => curve.points.length));
    const x = (i) => left + ((width - left - right) * (i + 0.5)) / count;
    const y = (value) => top + ((height - top - bottom) * (high - value)) / (high - low);
    const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", "font-size": "13", fill: "currentColor", role: "group", "aria-label": axis });
    const stride = Math.ceil((high - low) / 8);
    for (let tick = low; tick <= high; tick += stride) {
      drawing.append(shape("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), stroke: "currentColor", opacity: ".15" }));
      drawing.append(shape("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick).replace("-", "−")));
    }
    for (const { label, dash, points, bare } of curves) {
      const path = points.map((point, i) => (point.y === null ? "" : `${x(i).toFixed(1)},${y(point.y).toFixed(1)}`)).filter(Boolean).join(" ");
      drawing.append(shape("polyline", { points: path, fill: "none", stroke: "currentColor", "stroke-width": bare ? "5" : "1", opacity: bare ? ".4" : ".5", ...(dash && { "stroke-dasharray": dash }) }));
      if (bare) {
        const at = points.findIndex((point) => point.y !== null), end = points.findLast((point) => point.y !== null);
        const aside = end.y > points[at].y ? 18 : -9;  // on the side from which the line moves away
        drawing.append(shape("text", { class: "predicted", x: x(at), y: y(points[at].y) + aside }, label));
        continue;
      }
      points.forEach((point, i) => {
        const suspect = suspects.has(point.name);
        const title = shape("title", {}, `${point.name}: ${point.text}`);
        const at = { cx: x(i), cy: point.y === null ? height - bottom : y(point.y), r: suspect ? 5 : 4 };
        const colours = point.y === null ? { fill: "none", stroke: "currentColor" } : dash ? { fill: "none", stroke: "currentColor" } : { fill: suspect ? "var(--md-accent-fg-color)" : "currentColor" };
        const reachable = dash ? { "aria-hidden": "true" } : { tabindex: points.length > 60 ? "-1" : "0", role: "img", "aria-label": `${label}, ${point.name}: ${point.text}` };
        drawing.append(shape("circle", { ...at, ...colours, ...reachable }, title));
      });
    }
    drawing.append(shape("text", { x: left, y: height - 8 }, axis.startsWith("time") ? "first step" : "input"));
    drawing.append(shape("text", { x: width - right, y: height - 8, "text-anchor": "end" }, axis.startsWith("time") ? "last step" : "loss"));
    return drawing;
  }

  function pictures(answer) {
    const parts = [], suspects = new Set(answer.verdict === "healthy" ? [] : answer.layers);
    if (answer.rows.length > 1) {
      const isSignal = answer.rows.some((row) => row.signal !== null);
      const curve = (label, key, dash) => ({ label, dash, points: answer.rows.map((row) => ({ name: row.name, text: row.text, y: row[key] })) });
      const curves = [curve(isSignal ? "gradient" : "gradient over weight", "gradient", "")];
      if (isSignal) curves.push(curve("signal", "signal", "3 4"));
      const isPredicted = answer.rows.some((row) => row.predicted !== null);
      if (isPredicted) curves.push({ ...curve("predicted", "predicted", "9 5"), bare: true });
      parts.push(element("p", {}, isSignal ? "Filled points: log₁₀ of the gradient ∂E/∂h at each layer. Rings on a dashed line: log₁₀ of the signal’s size. Empty points on the axis: 0, or no finite number." + (isPredicted ? " The broad dashes without points are no measurement: they are the gradient that weights and slopes predict, from the last of these layers down." : "") : "Points: log₁₀ of gradient over weight of each matrix. Empty points on the axis: 0, none, or no finite number."));
      parts.push(picture(curves, suspects, "layers, input to loss"));
    }
    for (const row of answer.time.slice(0, 4)) {
      const points = row.gradient.slice(0, 600).map((norm, t) => ({ name: `step ${t + 1}`, text: norm === null ? "none" : vgpPlain.figures(norm), y: norm > 0 && Number.isFinite(norm) ? Math.log10(norm) : null }));
      if (points.length > 1) parts.push(element("p", {}, `log₁₀ of the gradient over time: ${row.name}`), picture([{ label: "gradient", dash: "", points }], new Set(), `time, of ${row.name}`));
    }
    return parts;
  }

  function finding(item, base) {
    const list = element("dl", {});
    const add = (term, ...what) => { if (what.join("")) list.append(element("dt", {}, term), element("dd", {}, ...what)); };
    add("Where", item.where);
    add("Why", `${item.why} (${item.certainty})`);
    add("In numbers", item.evidence.map((fact) => (fact.value ? `${fact.label}: ${fact.value}` : fact.label)).join("; "));
    add("Change", item.change);
    if (item.code) list.append(element("dd", {}, element("pre", {}, element("code", {}, item.code))));
    add("Then", item.next);
    list.append(element("dt", {}, "Read"), element("dd", {}, element("a", { href: `${base}${item.page.replace(/index$/, "")}${item.page.endsWith("index") ? "" : "/"}` }, "the page that explains it")));
    return list;
  }

  function show(answer, place, base) {
    const head = element("p", { role: "status" }, element("strong", {}, `${VERDICTS[answer.verdict]}: ${answer.title}`));
    const also = answer.also.length ? [element("p", {}, "Also seen:"), element("ul", {}, ...answer.also.map((item) => element("li", {}, `${item.title}${item.where ? `: ${item.where}` : ""}. ${item.why}`)))] : [];
    const remarks = answer.remarks.map((remark) => element("p", {}, remark));
    place.replaceChildren(head, ...(answer.error ? [element("p", {}, answer.error)] : [finding(answer, base), ...pictures(answer), ...also, ...remarks]));
  }

  function start(doctor) {
    const text = doctor.querySelector("textarea"), file = doctor.querySelector("input[type=file]"), place = doctor.querySelector(".diagnosis");
    const base = new URL(doctor.dataset.base, location.href).href;
    const ask = () => { if (text.value.trim()) show(vgpDiagnose(text.value), place, base); else place.replaceChildren(); };
    const take = (given) => {
      if (!given) return;
      if (given.size > LARGEST) return place.replaceChildren(element("p", { role: "alert" }, "The file has more than 50 megabytes: this is no report."));
      given.text().then((content) => {
        // a textarea with megabytes is slow; such a file is read and not shown
        text.value = content.length < 300000 ? content : "";
        show(vgpDiagnose(content), place, base);
      });
    };
    text.addEventListener("input", ask);
    file.addEventListener("change", () => take(file.files[0]));
    doctor.addEventListener("dragover", (event) => event.preventDefault());
    doctor.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
    for (const button of doctor.querySelectorAll("button[data-example]")) {
      button.addEventListener("click", () => { text.value = JSON.stringify(VGP_EXAMPLES[button.dataset.example], null, 1); ask(); });
    }
    ask();
  }

  return { start };
})();

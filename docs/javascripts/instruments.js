/* Instruments: a figure whose inputs can be moved. Each is one file in instruments/ that calls

     vgpInstruments.add("name", {
       title,                     what it is, for people
       controls: [...],           { name, label, min, max, step, value, log, whole, format } or { name, label, options, value, row },
                                  either with off(state): whether it means nothing in this state
       columns,                   optional: of controls, 3 unless given
       address: true,             optional: the state is kept in the page's address
       ask(state),                { key: [kernel function, arguments] }, computed in workers; {} if nothing is needed
       draw(state, answers),      { figure: SVG, alt, verdict: HTML, rows: table with header }
       changed(state, name),      optional: what else follows from a moved control, or, without a name, from a link
       drag(state, x, y),         optional: the state after the pointer went to (x, y) of the figure
     })

   and stands on a page as <div class="instrument" data-instrument="name"></div>. The site's build calls html(name), so
   that the page holds the first state without any script; start(element) brings it to life. */
const vgpInstruments = (() => {
  const known = {};
  const add = (name, instrument) => { known[name] = instrument; };

  // Text

  const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" }[c]));
  const significant = (x, digits = 3) => {
    if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
    if (x !== 0 && (Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3)) return power(x, digits);
    return String(Number(x.toPrecision(digits))).replace("-", "−");
  };
  const superscript = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
  const power = (x, digits = 2) => {
    const exponent = Math.floor(Math.log10(Math.abs(x)) + 1e-12), mantissa = Number((x / 10 ** exponent).toPrecision(digits));
    return `${mantissa === 1 ? "" : `${mantissa} × `}10${superscript(exponent)}`;
  };
  const tenTo = (decades) => `10${superscript(Math.round(decades))}`;
  const quantile = (sorted, share) => {
    const at = share * (sorted.length - 1), low = Math.floor(at);
    return low + 1 < sorted.length && at > low ? sorted[low] + (at - low) * (sorted[low + 1] - sorted[low]) : sorted[low];
  };

  // Drawing

  const WIDTH = 640, HEIGHT = 360, LEFT = 74, RIGHT = 18, TOP = 12, BOTTOM = 62;
  const round = (x) => Math.round(x * 10) / 10;

  function ticks(low, high, count = 5) {
    const raw = (high - low) / count, unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((m) => m * unit >= raw * 0.999);
    const found = [];
    for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) found.push(Number(x.toPrecision(12)));
    return found;
  }

  /* A pair of axes; the pieces drawn on it are collected and given out by svg(). */
  function chart({ x, y, xLabel, yLabel, xTicks, yTicks, left = LEFT, right = RIGHT, top = TOP, bottom = BOTTOM,
    logX = false, tick = (v) => significant(v, 6) }) {
    const [x0, x1] = logX ? x.map(Math.log10) : x, [y0, y1] = y;
    const across = WIDTH - left - right, down = HEIGHT - top - bottom;
    const px = (v) => round(left + ((logX ? Math.log10(v) : v) - x0) / (x1 - x0) * across);
    const py = (v) => round(top + (y1 - v) / (y1 - y0) * down);
    const held = (v) => Math.min(Math.max(v, y0 - (y1 - y0)), y1 + (y1 - y0));
    const at = ([a, b]) => `${px(a)},${py(held(b))}`;
    const pieces = [], labels = [];
    const clip = `clip-${left}-${right}-${top}-${bottom}`;
    const self = {
      px, py,
      x: (p) => { const v = x0 + (p - left) / across * (x1 - x0); return logX ? 10 ** v : v; },
      y: (p) => y1 - (p - top) / down * (y1 - y0),
      line(points, style) { pieces.push(`<polyline class="${style}" points="${points.filter((p) => Number.isFinite(p[1])).map(at).join(" ")}"/>`); return self; },
      area(upper, lower, style) { pieces.push(`<polygon class="${style}" points="${[...upper, ...lower.slice().reverse()].map(at).join(" ")}"/>`); return self; },
      rule(v, style) { pieces.push(`<line class="${style}" x1="${left}" x2="${WIDTH - right}" y1="${py(v)}" y2="${py(v)}"/>`); return self; },
      post(v, style) { pieces.push(`<line class="${style}" x1="${px(v)}" x2="${px(v)}" y1="${top}" y2="${HEIGHT - bottom}"/>`); return self; },
      dot(a, b, style, size = 4) { pieces.push(`<circle class="${style}" cx="${px(a)}" cy="${py(held(b))}" r="${size}"/>`); return self; },
      bar(a, b, from, to, style) {
        const [high, low] = [py(Math.max(from, to)), py(Math.min(from, to))];
        pieces.push(`<rect class="${style}" x="${px(a)}" y="${high}" width="${Math.max(round(px(b) - px(a)), 0)}" height="${round(low - high)}"/>`);
        return self;
      },
      text(a, b, words, { anchor = "start", dx = 0, dy = 0, style = "note" } = {}) {
        labels.push(`<text class="${style}" x="${px(a) + dx}" y="${py(b) + dy}" text-anchor="${anchor}">${escape(words)}</text>`);
        return self;
      },
      svg() {
        const grid = (yTicks || ticks(y0, y1, 5)).map((v) => {
          const [value, words] = Array.isArray(v) ? v : [v, tick(v)];
          return `<line class="grid" x1="${left}" x2="${WIDTH - right}" y1="${py(value)}" y2="${py(value)}"/>` +
            `<text class="tick" x="${left - 8}" y="${py(value) + 5}" text-anchor="end">${escape(words)}</text>`;
        }).join("");
        const below = (xTicks || ticks(x0, x1, 5)).map((v) => {
          const [value, words] = Array.isArray(v) ? v : [v, tick(v)];
          return `<line class="axis" x1="${px(value)}" x2="${px(value)}" y1="${HEIGHT - bottom}" y2="${HEIGHT - bottom + 5}"/>` +
            `<text class="tick" x="${px(value)}" y="${HEIGHT - bottom + 22}" text-anchor="middle">${escape(words)}</text>`;
        }).join("");
        const middle = top + down / 2;
        return `<clipPath id="${clip}"><rect x="${left}" y="${top - 6}" width="${across}" height="${down + 12}"/></clipPath>` + grid +
          `<line class="axis" x1="${left}" x2="${WIDTH - right}" y1="${HEIGHT - bottom}" y2="${HEIGHT - bottom}"/>` + below +
          `<text class="label" x="${left + across / 2}" y="${HEIGHT - bottom + 50}" text-anchor="middle">${escape(xLabel)}</text>` +
          `<text class="label" transform="rotate(-90)" x="${-middle}" y="${left - 56}" text-anchor="middle">${escape(yLabel)}</text>` +
          `<g clip-path="url(#${clip})">${pieces.join("")}</g>` + labels.join("");
      },
    };
    return self;
  }

  // The parts of an instrument, as HTML

  const phi = (name) => VGP_DATA.activations.find((one) => one.name === name);
  const look = (state) => {
    const { light, dark } = phi(state.activation) || { light: "#1311a3", dark: "#b9c2ff" };
    return `--light:${light};--dark:${dark}`;
  };
  const decimals = (step) => Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const written = (control, value) => control.format ? control.format(value) : String(Number(value.toFixed(decimals(control.step || 1)))).replace("-", "−");
  const toSlider = (control, value) => control.log ? Math.log10(value) : value;
  const fromSlider = (control, position) => {
    if (!control.log) return Number(position);
    const value = 10 ** Number(position);
    return control.whole ? Math.round(value) : Number(value.toPrecision(3));
  };

  function controlHtml(name, control, state) {
    const id = `${name}-${control.name}`, value = state[control.name];
    if (control.options) {
      const options = control.options.map(([key, label]) => `<option value="${key}"${key === value ? " selected" : ""}>${escape(label)}</option>`).join("");
      return `<div class="control${control.row ? " row" : ""}"><label for="${id}">${escape(control.label)}</label><select id="${id}" name="${control.name}">${options}</select></div>`;
    }
    const [low, high] = [control.min, control.max].map((v) => toSlider(control, v));
    const step = control.log ? (high - low) / 200 : control.step;
    return `<div class="control"><label for="${id}">${escape(control.label)}</label><span class="value" aria-hidden="true">${escape(written(control, value))}</span>` +
      `<input type="range" id="${id}" name="${control.name}" min="${low}" max="${high}" step="${step}" value="${toSlider(control, value)}" aria-valuetext="${escape(written(control, value))}"></div>`;
  }

  const tableHtml = ([header, ...rows]) =>
    `<table><thead><tr>${header.map((cell) => `<th scope="col">${escape(cell)}</th>`).join("")}</tr></thead>` +
    `<tbody>${rows.map((row) => `<tr>${row.map((cell) => `<td>${escape(cell)}</td>`).join("")}</tr>`).join("")}</tbody></table>`;
  const figureHtml = ({ figure, alt }) =>
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-label="${escape(alt)}">${figure}</svg>`;
  const initial = (name) => Object.fromEntries(known[name].controls.map((control) => [control.name, control.value]));

  /* The whole instrument in its first state; `kernels` answers at once. For the site's build. */
  function html(name, kernels) {
    const instrument = known[name], state = initial(name), answers = {};
    for (const [key, [call, options]] of Object.entries(instrument.ask(state))) answers[key] = kernels[call](options);
    const drawn = instrument.draw(state, answers);
    return `<p class="instrument-title">${escape(instrument.title)}</p>` +
      `<fieldset disabled style="--columns:${instrument.columns || 3};--narrow:${instrument.columns > 3 ? 3 : 2}"><legend class="unseen">${escape(instrument.title)}</legend>${instrument.controls.map((c) => controlHtml(name, c, state)).join("")}</fieldset>` +
      `<div class="instrument-figure" style="${look(state)}">${figureHtml(drawn)}</div>` +
      `<div class="verdict">${drawn.verdict}</div><div class="unseen" role="status"></div>` +
      `<details><summary>The numbers of this figure</summary><div class="instrument-table">${tableHtml(drawn.rows)}</div></details>`;
  }

  // The kernels: in this page for what takes a few milliseconds, in workers for sampled networks. These are cut into
  // tasks, and a newer state drops what is left of an older one.

  const PIECE = 4;  // networks per task: the kernel takes so many plain ones at once; one with a batch costs more than that
  let starting = null;

  function engine() {
    const packed = () => new Blob([Uint8Array.from(atob(VGP_DATA.wasm), (c) => c.charCodeAt(0))]);
    starting ??= new Response(packed().stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer().then((buffer) => {
      const module = { ...VGP_DATA, bytes: new Uint8Array(buffer) };
      const source = `${vgpKernels}
        let kernels;
        onmessage = ({ data }) => {
          try {
            if (data.bytes) { kernels = vgpKernels(data); postMessage({}); }
            else postMessage({ answer: kernels.propagate(data.options) });
          } catch (error) { postMessage({ error: String(error) }); }
        };`;
      const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      const workers = Array.from({ length: Math.min(4, navigator.hardwareConcurrency || 1) }, () => new Worker(address));
      const started = workers.map((worker) => new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => data.error ? reject(data.error) : resolve();
        worker.onerror = ({ message }) => reject(message);
        worker.postMessage(module);
      }));
      // each worker stands there twice: it has its next task while this page draws
      const pool = { kernels: vgpKernels(module), idle: [...workers, ...workers], queue: [] };
      return Promise.all(started).then(() => {
        for (const worker of workers) {
          worker.tasks = [];
          worker.onmessage = ({ data }) => {
            const task = worker.tasks.shift();
            pool.idle.push(worker);
            work(pool);
            task.done(data);
          };
        }
        return pool;
      });
    });
    return starting;
  }

  function work(pool) {
    while (pool.idle.length && pool.queue.length) {
      const worker = pool.idle.pop(), task = pool.queue.shift();
      worker.tasks.push(task);
      worker.postMessage({ options: task.options });
    }
  }

  /* Answers to the questions; onPart is called at once, and whenever some networks have come. */
  function compute(pool, owner, questions, onPart, onError) {
    const answers = {}, isSampled = ([, [call]]) => call === "propagate", all = Object.entries(questions);
    let open = 0;
    owner.questions = questions;
    pool.queue = pool.queue.filter((task) => task.owner !== owner);
    for (const [key, [, options]] of all.filter(isSampled)) {
      const piece = options.batchSize > 1 ? 1 : PIECE, parts = [];
      for (let first = 0; first < options.trials; first += piece) {
        open += 1;
        pool.queue.push({ owner, options: { ...options, first, trials: Math.min(piece, options.trials - first) }, done: ({ answer, error }) => {
          if (owner.questions !== questions) return;
          if (error) return onError(error);
          parts[first / piece] = answer;
          const there = parts.filter(Boolean);  // in the order of the trials, whichever worker was first
          answers[key] = Object.fromEntries(Object.keys(answer).map((name) => [name, there.flatMap((one) => one[name])]));
          open -= 1;
          onPart(answers, open === 0);
        } });
      }
    }
    work(pool);
    for (const [key, [call, options]] of all) if (!isSampled([key, [call]])) answers[key] = pool.kernels[call](options);
    onPart(answers, open === 0);
  }

  // Life

  const PATIENCE = [30, 60];  // milliseconds until theory and the networks that are there are drawn; then until more are

  function fromAddress(name, state, search = location.search) {
    const query = new URLSearchParams(search);
    for (const control of known[name].controls) {
      const text = query.get(control.name);
      if (text === null) continue;
      if (control.options) {
        if (!control.options.some(([key]) => key === text)) continue;
        state[control.name] = text;
      } else if (text.trim() !== "" && Number.isFinite(Number(text))) {
        const value = Math.min(Math.max(Number(text), control.min), control.max);
        state[control.name] = control.whole || control.step === 1 ? Math.round(value) : value;
      }
    }
    known[name].changed?.(state);
  }

  function toAddress(name, state) {
    const address = new URL(location.href);
    for (const control of known[name].controls) {
      if (state[control.name] === control.value) address.searchParams.delete(control.name);
      else address.searchParams.set(control.name, state[control.name]);
    }
    history.replaceState(history.state, "", address);
  }

  function start(element) {
    const name = element.dataset.instrument, instrument = known[name];
    const state = initial(name), owner = {};
    let pool = null;
    const part = (selector) => element.querySelector(selector);
    const figure = part(".instrument-figure"), inputs = new Map();
    let frame = 0, saying = 0, waiting = 0, draws = 0, latest = null;
    if (instrument.address) fromAddress(name, state);

    /* Draw what was asked for once it is complete, and after a while in any case: `answers` fills up. */
    function show(asked, answers, complete) {
      latest = { asked, answers, complete };
      if (complete) draw();
      else waiting ||= setTimeout(draw, PATIENCE[Math.min(draws, 1)]);
    }

    function draw() {
      const { asked, answers, complete } = latest;
      clearTimeout(waiting);
      waiting = 0;
      draws += 1;
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        const drawn = instrument.draw(asked, answers);
        if (!drawn) return;
        figure.style.cssText = look(asked);
        figure.innerHTML = figureHtml(drawn);
        const open = part(".verdict details")?.open;
        part(".verdict").innerHTML = drawn.verdict;
        if (open) part(".verdict details").open = true;
        part(".instrument-table").innerHTML = tableHtml(drawn.rows);
        element.dataset.networks = drawn.networks ?? "";
        if (complete && asked === latest.asked) {
          element.dataset.state = "ready";
          clearTimeout(saying);
          saying = setTimeout(() => { part("[role=status]").textContent = part(".verdict").firstElementChild.textContent; }, 500);
        }
      });
    }

    function failed(error) {
      part("[role=status]").textContent = error;
      element.dataset.state = "failed";
    }

    function update() {
      if (!pool) return;  // it will be called when the kernels are there
      element.dataset.state = "busy";
      draws = 0;
      for (const [control, input] of inputs) {
        input.disabled = control.off?.(state) ?? false;
        const words = control.options ? "" : written(control, state[control.name]);
        if (control.options) { input.value = state[control.name]; continue; }
        input.value = toSlider(control, state[control.name]);
        input.setAttribute("aria-valuetext", words);
        input.previousElementSibling.textContent = words;
      }
      try {
        const asked = { ...state };
        compute(pool, owner, instrument.ask(asked), (...found) => show(asked, ...found), failed);
      } catch (error) { failed(error); }
    }

    for (const control of instrument.controls) {
      const input = part(`[name="${control.name}"]`);
      inputs.set(control, input);
      input.addEventListener("input", () => {
        state[control.name] = control.options ? input.value : fromSlider(control, input.value);
        instrument.changed?.(state, control.name);
        update();
      });
      input.addEventListener("change", () => { if (instrument.address) toAddress(name, state); });
    }

    element.addEventListener("click", (event) => {
      const link = event.target.closest("a.try");
      if (!link || !pool) return;
      event.preventDefault();
      event.stopPropagation();  // the theme would load the page anew
      fromAddress(name, state, link.search);
      toAddress(name, state);
      update();
      figure.setAttribute("tabindex", -1);
      figure.focus();
    });

    if (instrument.drag) {
      figure.classList.add("draggable");
      const move = (event) => {
        const box = figure.firstElementChild.getBoundingClientRect();
        instrument.drag(state, (event.clientX - box.left) / box.width * WIDTH, (event.clientY - box.top) / box.height * HEIGHT);
        update();
      };
      figure.addEventListener("pointerdown", (event) => { figure.setPointerCapture(event.pointerId); move(event); });
      figure.addEventListener("pointermove", (event) => { if (figure.hasPointerCapture(event.pointerId)) move(event); });
    }

    if (typeof WebAssembly === "undefined" || typeof DecompressionStream === "undefined") return;  // the first state stays, its controls off
    engine().then((found) => {
      pool = found;
      part("fieldset").disabled = false;
      update();
    }, failed);
  }

  return { add, html, start, chart, significant, power, tenTo, quantile, superscript, escape, ticks, HEIGHT, WIDTH, phi };
})();

/* A cell: code that a reader can change and run. The engine is fetched at the first Run, and runs in a worker, so that Stop ends any loop. */
const vgpCell = (() => {
  const LONGEST = 100000;  // characters of output; an endless print would fill the memory
  let count = 0;

  function button(name, action) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = name;
    made.addEventListener("click", action);
    return made;
  }

  function start(cell, base) {
    const block = cell.querySelector(".highlight"), printed = cell.querySelector(".cell-output samp");
    const first = { code: block.querySelector("code").textContent.replace(/\n$/, ""), output: printed.textContent };
    const number = count += 1;
    const editor = document.createElement("textarea"), hint = document.createElement("p"), bar = document.createElement("div");
    let worker = null, leave = false;

    function fit() { editor.rows = editor.value.split("\n").length; }

    function end(note = "") {
      worker?.terminate();
      worker = null;
      printed.textContent = printed.textContent.replace(/\n$/, "") + note;
      run.disabled = false;
      stop.disabled = true;
    }

    function begin() {
      if (worker) return;
      printed.textContent = "";
      run.disabled = true;
      stop.disabled = false;
      worker = new Worker(`${base}cell.worker.js`);
      worker.onerror = (event) => end(`The cell cannot run: ${event.message || "its worker does not load"}`);
      worker.onmessage = ({ data }) => {
        if (data.end) {
          end(printed.textContent.includes("ImportError: ") ? "\nA cell has plain Python alone. The labs run with NumPy and the kernels." : "");
          return;
        }
        printed.textContent += data.print.replaceAll('File "<stdin>"', "Cell");
        if (printed.textContent.length > LONGEST) end("\nStopped: too much output");
      };
      worker.postMessage({ engine: new URL(`${base}../assets/python/micropython.wasm`).href, code: editor.value });
    }

    const run = button("Run", begin);
    const stop = button("Stop", () => { end("\nStopped"); run.focus(); });
    const reset = button("Reset", () => {
      end();
      editor.value = first.code;
      printed.textContent = first.output;
      fit();
    });
    const copy = button("Copy", () => navigator.clipboard.writeText(editor.value).then(
      () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); },
      () => editor.select(),
    ));
    stop.disabled = true;

    editor.value = first.code;
    editor.spellcheck = false;
    editor.autocapitalize = "off";
    editor.wrap = "off";
    editor.setAttribute("aria-label", "Python code");
    hint.id = `cell-hint-${number}`;
    hint.className = "cell-hint";
    hint.textContent = "Ctrl-Enter runs. Tab indents; to leave, press Escape, then Tab.";
    editor.setAttribute("aria-describedby", hint.id);
    editor.addEventListener("input", fit);
    editor.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        begin();
      } else if (event.key === "Tab" && !event.shiftKey && !leave) {
        event.preventDefault();
        editor.setRangeText("    ", editor.selectionStart, editor.selectionEnd, "end");
      }
      leave = event.key === "Escape";
      event.stopPropagation();  // the theme's own keys, such as s for search
    });
    fit();
    bar.className = "cell-bar";
    bar.append(run, stop, reset, copy);
    block.replaceWith(editor, bar, hint);
  }

  return { start };
})();

/* Runs one cell's Python: MicroPython as a WASI program with its text in argv; a system call it does not need is refused. */
onmessage = async ({ data: { engine, code } }) => {
  const text = new TextEncoder(), decoders = {};
  const args = ["micropython", "-c", code].map((word) => text.encode(word + "\0"));
  let memory;
  const view = () => new DataView(memory.buffer);
  const bytes = (at, length) => new Uint8Array(memory.buffer, at, length);
  const OK = 0, BADF = 8, NOSYS = 52;
  class Exit extends Error {}
  const calls = {
    args_sizes_get(count, size) {
      view().setUint32(count, args.length, true);
      view().setUint32(size, args.reduce((sum, word) => sum + word.length, 0), true);
      return OK;
    },
    args_get(pointers, at) {
      args.forEach((word, i) => {
        view().setUint32(pointers + 4 * i, at, true);
        bytes(at, word.length).set(word);
        at += word.length;
      });
      return OK;
    },
    environ_sizes_get(count, size) {
      view().setUint32(count, 0, true);
      view().setUint32(size, 0, true);
      return OK;
    },
    environ_get: () => OK,
    clock_time_get(_id, _precision, at) {
      view().setBigUint64(at, BigInt(Math.round(performance.now() * 1e6)), true);
      return OK;
    },
    random_get(at, length) {
      crypto.getRandomValues(bytes(at, length));
      return OK;
    },
    fd_write(fd, vectors, count, written) {
      if (fd !== 1 && fd !== 2) return BADF;
      const decoder = decoders[fd] ??= new TextDecoder();
      let total = 0;
      for (let i = 0; i < count; i += 1) {
        const length = view().getUint32(vectors + 8 * i + 4, true);
        postMessage({ print: decoder.decode(bytes(view().getUint32(vectors + 8 * i, true), length), { stream: true }) });
        total += length;
      }
      view().setUint32(written, total, true);
      return OK;
    },
    fd_prestat_get: () => BADF,
    proc_exit(status) { throw new Exit(String(status)); },
  };
  try {
    const response = await fetch(engine);
    if (!response.ok) throw new Error(`cannot load ${engine}: ${response.status}`);
    const module = await WebAssembly.compile(await response.arrayBuffer());
    const imports = {};
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      (imports[from] ??= {})[name] = (from === "wasi_snapshot_preview1" && calls[name]) || (() => NOSYS);
    }
    const { exports } = await WebAssembly.instantiate(module, imports);
    memory = exports.memory;
    try { exports._start(); } catch (error) { if (!(error instanceof Exit)) throw error; }
    postMessage({ end: true });
  } catch (error) {
    postMessage({ print: `${error.name}: ${error.message}\n` });
    postMessage({ end: true });
  }
};

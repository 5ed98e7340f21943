/* Loads the instruments, the cells and the diagnosis where a page has them; other pages pay for these few lines only. */
(() => {
  const base = document.currentScript.src.replace(/[^/]*$/, "");
  const loading = new Map();

  function load(file) {
    if (!loading.has(file)) {
      loading.set(file, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = base + file;
        script.onload = resolve;
        script.onerror = () => reject(new Error(`cannot load ${script.src}`));
        document.head.append(script);
      }));
    }
    return loading.get(file);
  }

  function start(element) {
    Promise.all(["kernels.js", "kernels.data.js", "instruments.js"].map(load))
      .then(() => load(`instruments/${element.dataset.instrument}.js`))
      .then(() => vgpInstruments.start(element));
  }

  // An instrument comes to life when it comes near the window; until then its first state stands there.
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      start(target);
    }
  }, { rootMargin: "200px" });

  function watch() {
    for (const element of document.querySelectorAll(".instrument[data-instrument]:not([data-watched])")) {
      element.dataset.watched = "";
      near.observe(element);
    }
    const cells = [...document.querySelectorAll(".cell:not([data-watched])")];
    for (const cell of cells) cell.dataset.watched = "";
    if (cells.length) load("cell.js").then(() => cells.forEach((cell) => vgpCell.start(cell, base)));
    const doctor = document.querySelector("#doctor:not([data-watched])");
    if (doctor) {
      doctor.dataset.watched = "";
      Promise.all(["doctor.rules.js", "doctor.examples.js", "doctor.js"].map(load)).then(() => vgpDoctor.start(doctor));
    }
  }

  watch();  // this script stands at the end of the page
  document$.subscribe(watch);  // with instant navigation the page changes and the scripts stay
})();

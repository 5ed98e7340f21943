// The ledger's filters, by verdict and by words. Without this script the form stays hidden and every claim is shown.
document$.subscribe(() => {
  const form = document.querySelector("#ledger-filter");
  if (!form) return;
  const verdicts = [...form.querySelectorAll("[type=checkbox]")], search = form.querySelector("[type=search]");
  const sections = [...form.parentElement.querySelectorAll("h2[id] ~ :has(tr > td:nth-child(5)), h2[id] ~ table:has(tr > td:nth-child(5))")].map((box) => ({
    box, heading: box.previousElementSibling, rows: [...box.querySelectorAll("tbody tr")],
  }));
  const show = () => {
    const wanted = verdicts.filter((verdict) => verdict.checked).map((verdict) => verdict.value);
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, all = 0;
    for (const { box, heading, rows } of sections) {
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.includes(row.lastElementChild.textContent.trim()[0]) || !words.every((word) => text.includes(word));
        shown += !row.hidden;
        all += 1;
      }
      box.hidden = heading.hidden = rows.every((row) => row.hidden);
    }
    form.querySelector("output").textContent = `${shown} of ${all} sentences`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
});

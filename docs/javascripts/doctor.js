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

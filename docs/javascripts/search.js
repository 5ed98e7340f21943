/* The search, in the theme's place for a worker of one's own. Its messages: 0 set up, 1 ready, 2 query, 3 result.
   The index is fetched when the first letter is typed. Ranked by BM25 over titles, text and the questions that pages say they answer;
   American spelling, word endings, synonyms and a wrong letter do not matter, and no input is an error. */
"use strict";

function vgpSearch({ docs, synonyms, asides }) {
  const STOP = new Set(
    ("a an and are as at be been but by can could did do does for from get gets getting had has have how i if in into is it its me my of " +
      "on or our should so than that the their them then there these they this to use using was we what when where which why will with would you your don doesn didn isn aren won t s ll re ve")
      .split(" ")
  );

  // "0.25^n", "(0.25)ⁿ", "σ'(x)" and "kaiming_normal_" are words too
  const words = (text) =>
    text.normalize("NFKD").replace(/\p{M}/gu, "").match(/[\p{L}\p{N}_]+(?:\.\p{N}+)*/gu) || [];

  function stem(word) {
    if (word.length < 4 || /[\d_]/.test(word)) return word;
    const british = word.replace(/iz(?=e|ing|ation)/, "is").replace(/yz(?=e|ing)/, "ys").replace(/ior(?=s?$)/, "iour");
    for (const ending of ["ations", "ation", "ating", "ated", "ates", "ate", "ions", "ion", "ings", "ing", "ied", "ies", "ers", "er", "ed", "es", "e", "s", "y"])
      if (british.endsWith(ending) && british.length - ending.length >= 3) {
        const root = british.slice(0, -ending.length);
        return root.length > 4 && /([^aeioul])\1$/.test(root) ? root.slice(0, -1) : root;
      }
    return british;
  }

  const tokens = (text) => words(text).flatMap((word) => {
    const lower = word.toLowerCase(), parts = lower.split("_").filter(Boolean);
    return [lower, ...(parts.length > 1 ? parts : [])].map(stem);
  });

  // a phrase of one meaning counts as one word as well, "=" and the number of its line
  const phrases = new Map();
  synonyms.forEach((line, number) => {
    for (const phrase of line) {
      const key = words(phrase).map((word) => stem(word.toLowerCase()));
      const same = phrases.get(key[0]) || [];
      same.push({ key, meaning: "=" + number });
      phrases.set(key[0], same.sort((a, b) => b.key.length - a.key.length));
    }
  });
  const phraseAt = (list, at) =>
    (phrases.get(list[at]) || []).filter(({ key }) => key.every((word, i) => list[at + i] === word));
  const withMeanings = (list) => [...list, ...list.flatMap((_, at) => phraseAt(list, at).map(({ meaning }) => meaning))];

  const count = (list) => {
    const counted = new Map();
    for (const word of list) counted.set(word, (counted.get(word) || 0) + 1);
    return counted;
  };
  const held = docs.map((doc) => ({
    ...doc,
    page: doc.location.split("#")[0],
    title_words: count(withMeanings(tokens(doc.title))),
    text_words: count(withMeanings(tokens(doc.text))),
    length: words(doc.text).length,
    questions: (doc.asked || []).map((question) => new Set(meaningful(question).map(({ word }) => word))),
  }));
  const vocabulary = new Map();
  for (const doc of held)
    for (const word of new Set([...doc.title_words.keys(), ...doc.text_words.keys(), ...doc.questions.flatMap((q) => [...q])]))
      vocabulary.set(word, (vocabulary.get(word) || 0) + 1);
  const typical = held.reduce((sum, doc) => sum + doc.length, 0) / held.length;
  const weight = (word) => Math.log(1 + held.length / (vocabulary.get(word) || 0.5));

  // what is looked for: {word, shown}, meanings in place of the words that have one
  function meaningful(text) {
    const shown = words(text), list = shown.map((word) => stem(word.toLowerCase())), found = [];
    for (let at = 0; at < list.length; ) {
      const [longest] = phraseAt(list, at), size = longest ? longest.key.length : 1;
      const said = shown.slice(at, at + size);
      if (longest) found.push({ word: longest.meaning, shown: said });
      else if (!STOP.has(shown[at].toLowerCase())) {
        const parts = shown[at].includes("_") ? tokens(shown[at]).slice(1) : [];
        if (parts.length) for (const part of meaningful(shown[at].split("_").join(" "))) found.push({ ...part, shown: said });
        else found.push({ word: list[at], shown: said });
      }
      at += size;
    }
    return found;
  }

  function isNear(a, b) {  // one letter wrong, missing, too many, or two exchanged
    if (Math.abs(a.length - b.length) > 1) return false;
    let i = 0, j = 0;
    while (i < a.length && i < b.length && a[i] === b[i]) i++;
    while (j < a.length - i && j < b.length - i && a[a.length - 1 - j] === b[b.length - 1 - j]) j++;
    const [restA, restB] = [a.slice(i, a.length - j), b.slice(i, b.length - j)];
    return restA.length + restB.length <= 1 || (restA.length === 1 && restB.length === 1) ||
      (restA.length === 2 && restA[0] === restB[1] && restA[1] === restB[0]);
  }

  // the words of the index that a word of the query may stand for, each with how surely
  function meant({ word, shown }, isLast) {
    const found = new Map();
    if (vocabulary.has(word)) found.set(word, 1);
    const typed = shown[0].toLowerCase();
    if (isLast && word[0] !== "=" && typed.length > 2)
      for (const known of vocabulary.keys()) if (known.startsWith(typed) && known !== word) found.set(known, found.size ? 0.4 : 0.8);
    if (!found.size && word.length > 3)
      for (const known of vocabulary.keys()) if (known.length > 3 && isNear(word, known)) {
        found.set(known, 0.6);
        for (const { key, meaning } of phrases.get(known) || []) if (key.length === 1) found.set(meaning, 0.6);
      }
    return found;
  }

  function score(doc, query) {
    let sum = 0;
    const matched = query.map(({ candidates }) => {
      let best = 0;
      for (const [word, surely] of candidates) {
        const inText = doc.text_words.get(word) || 0, inTitle = doc.title_words.get(word) || 0;
        const often = inText / (inText + 0.6 + 0.6 * (doc.length / typical));
        best = Math.max(best, surely * weight(word) * (often + (inTitle ? 1.5 : 0)));
      }
      sum += best;
      return best > 0;
    });
    return { sum, matched };
  }

  // how well the best question of a place is the one that was asked, 0 to 1: the share in common, by weight
  function asked(doc, query) {
    let best = 0;
    for (const question of doc.questions) {
      let common = 0, mine = 0, theirs = 0;
      const used = new Set();
      for (const { word, candidates } of query) {
        mine += weight(word);
        let surest = 0;
        for (const [candidate, surely] of candidates) if (question.has(candidate) && surely > surest) {
          surest = surely;
          used.add(candidate);
        }
        common += surest * weight(word);
      }
      for (const word of question) theirs += weight(word);
      if (common) best = Math.max(best, Math.min(1, common / Math.max(mine, 0.7 * theirs)) ** 2);
    }
    return best;
  }

  const escaped = (text) => text.replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);

  function marked(text, query) {
    const looked = new Set(query.flatMap(({ shown, candidates }) => [...shown.map((word) => stem(word.toLowerCase())), ...candidates.keys()]));
    return text.split(/([\p{L}\p{N}_]+)/u).map((part, at) =>
      at % 2 && looked.has(stem(part.toLowerCase())) ? `<mark data-md-highlight>${escaped(part)}</mark>` : escaped(part)).join("");
  }

  function excerpt(text, query) {
    const sentences = text.split(/(?<=[.?!:])\s+/), has = (s) => (marked(s, query).match(/<mark/g) || []).length;
    const counts = sentences.map(has), best = Math.max(0, counts.indexOf(Math.max(...counts)));
    let shown = sentences[best] || "";
    if (shown.length < 120 && sentences[best + 1]) shown += " " + sentences[best + 1];
    return marked(shown.length > 260 ? shown.slice(0, 257) + " …" : shown, query);
  }

  return function search(text) {
    let query = meaningful(text);
    if (!query.length) query = words(text).map((word) => ({ word: stem(word.toLowerCase()), shown: [word] }));
    const isWhole = /\s$/.test(text);
    query = query.map((part, at) => ({ ...part, candidates: meant(part, at === query.length - 1 && !isWhole) }));
    const all = query.reduce((sum, { word }) => sum + weight(word), 0);
    const pages = new Map();
    for (const doc of held) {
      const { sum, matched } = score(doc, query), answer = asked(doc, query);
      if (!sum && !answer) continue;
      const page = pages.get(doc.page) || { places: [], matched: query.map(() => false) };
      matched.forEach((is, at) => { page.matched[at] ||= is || answer > 0.5; });
      page.places.push({ doc, matched, score: sum / all + 3 * answer });
      pages.set(doc.page, page);
    }
    const ranked = [...pages].map(([location, page]) => {
      page.places.sort((a, b) => b.score - a.score);
      const covered = query.reduce((sum, { word }, at) => sum + (page.matched[at] ? weight(word) : 0), 0) / all;
      const others = page.places.slice(1, 5).reduce((sum, place) => sum + place.score, 0);
      const isNamed = page.places.some(({ doc }) => doc.title.toLowerCase() === text.trim().toLowerCase());
      const isAside = asides.some((start) => location.startsWith(start)) && !isNamed;
      return { location, ...page, isAside, score: (page.places[0].score + 0.15 * others) * covered };
    }).filter(({ score: s }) => s > 0).sort((a, b) => a.isAside - b.isAside || b.score - a.score).slice(0, 20);

    const items = ranked.map(({ location, places, matched }, rank) => {
      const terms = Object.fromEntries(query.map(({ shown }, at) => [shown.join(" "), matched[at]]));
      const own = places.find(({ doc }) => doc.location === location) ||
        { doc: held.find((doc) => doc.location === location) || places[0].doc };
      const sections = places.filter((place) => place !== own && place.score > 0.25 * places[0].score).slice(0, 4);
      const item = ({ doc }, at) => ({
        location: doc.location, title: marked(doc.title, query), text: excerpt(doc.text, query), terms,
        score: 1000 - 10 * rank - at,
      });
      return own === places[0] ? [own, ...sections].map(item) : [...sections, own].map(item);
    });
    return { items };
  };
}

if (typeof importScripts === "function") {
  let search;
  const failure = (why) => () => ({ items: [[{
    location: "", title: "The search cannot be used", text: `Its index could not be read (${why}). The contents are in the menu.`, terms: {}, score: 1,
  }]] });
  self.onmessage = async ({ data: { type, data } }) => {
    if (type === 0) return self.postMessage({ type: 1 });
    if (!data.trim()) return self.postMessage({ type: 3, data: { items: [] } });
    search ||= fetch("../search/pages.json")
      .then((answer) => answer.ok ? answer.json() : Promise.reject(answer.status))
      .then(vgpSearch).catch((error) => failure(String(error).replace(/[&<>]/g, "")));
    self.postMessage({ type: 3, data: (await search)(data) });
  };
}

"use strict";
/* Which entries are shown and in what order, and the address that says so. Nothing here touches the page. */
const evqaFilters = (() => {
  const DEFAULTS = { run: "", show: "all", theta: "0.5", type: "", source: "", q: "", sort: "order", view: "one", entry: "" };
  const THETAS = ["0.3", "0.5", "0.7"]; /* the thresholds that EBA is reported at */
  const SLACK = 1e-9; /* as evqa.scoring.joint.reaches */

  function reaches(value, theta) {
    return value >= theta - SLACK;
  }

  /* Whether the answer is right: true, false, or null where the reference has no answer. */
  function right(said) {
    const value = said.v.accuracy === undefined ? said.v.qa_accuracy : said.v.accuracy;
    return value === undefined ? null : value === 1;
  }

  /* Whether the evidence is right at a threshold; null where the reference holds none. As EBA asks for it: what the
     reference does not hold is not asked for. In the MCQ task both choices of evidence must be right. */
  function proven(said, theta) {
    const v = said.v;
    if (v.temporal_accuracy !== undefined || v.spatial_accuracy !== undefined) {
      return v.temporal_accuracy !== 0 && v.spatial_accuracy !== 0;
    }
    if (v.mIoU === undefined && v["J&F"] === undefined) return null;
    return (v.mIoU === undefined || reaches(v.mIoU, theta)) && (v["J&F"] === undefined || reaches(v["J&F"], theta));
  }

  function below(metric) {
    return (entry, run, theta) => entry.runs[run].v[metric] !== undefined && !reaches(entry.runs[run].v[metric], theta);
  }

  const SHOWS = [
    { key: "all", label: "All", test: () => true },
    { key: "unproven", label: "Answer right, evidence wrong", test: (e, r, t) => right(e.runs[r]) === true && proven(e.runs[r], t) === false },
    { key: "unanswered", label: "Evidence right, answer wrong", test: (e, r, t) => right(e.runs[r]) === false && proven(e.runs[r], t) === true },
    { key: "proven", label: "Both right", test: (e, r, t) => right(e.runs[r]) === true && proven(e.runs[r], t) === true },
    { key: "neither", label: "Both wrong", test: (e, r, t) => right(e.runs[r]) === false && proven(e.runs[r], t) === false },
    { key: "wrong", label: "Answer wrong", test: (e, r) => right(e.runs[r]) === false },
    { key: "low-tiou", label: "Low tIoU", task: "gen", test: below("mIoU") },
    { key: "low-jf", label: "Low J&F", task: "gen", test: below("J&F") },
    { key: "failed", label: "Failed", test: (e, r) => e.runs[r].status !== "ok" },
    { key: "problems", label: "With problems", test: (e, r) => e.runs[r].problems > 0 },
    { key: "disagree", label: "Runs disagree", runs: 2, test: (e) => new Set(e.runs.map(right)).size > 1 },
  ];

  const ABSENT = 2; /* sorts after every score */
  function by(metric, sign) {
    return (e, r) => (e.runs[r].v[metric] === undefined ? ABSENT : sign * e.runs[r].v[metric]);
  }

  const SORTS = [
    { key: "order", label: "as in the benchmark" },
    { key: "tiou", label: "tIoU, lowest first", task: "gen", by: by("mIoU", 1) },
    { key: "tiou-high", label: "tIoU, highest first", task: "gen", by: by("mIoU", -1) },
    { key: "jf", label: "J&F, lowest first", task: "gen", by: by("J&F", 1) },
    { key: "jf-high", label: "J&F, highest first", task: "gen", by: by("J&F", -1) },
    { key: "long", label: "longest clip first", by: (e) => -(e.duration || 0) },
    { key: "short", label: "shortest clip first", by: (e) => e.duration || Infinity },
    { key: "confident", label: "most confident first", confidence: true, by: (e, r) => -(e.runs[r].confidence ?? -1) },
  ];

  /* Only what makes sense for this page. */
  function offered(list, index) {
    const confident = index.entries.some((e) => e.runs.some((r) => r.confidence !== undefined));
    return list.filter((one) =>
      (!one.task || one.task === index.task) && (!one.runs || index.runs.length >= one.runs) && (!one.confidence || confident));
  }

  function text(entry) {
    if (entry.text === undefined) {
      const parts = [entry.id, entry.video_id, entry.question, ...entry.candidates, ...entry.runs.map((r) => r.answer || "")];
      entry.text = parts.join("\n").toLowerCase();
    }
    return entry.text;
  }

  /* All filters but the one for verdicts; what its buttons count. */
  function candidates(index, state) {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    return index.entries.filter((entry) =>
      (!state.type || entry.type === state.type) && (!state.source || entry.source === state.source) &&
      words.every((word) => text(entry).includes(word)));
  }

  function runNumber(index, state) {
    return Math.max(0, index.runs.findIndex((run) => run.name === state.run));
  }

  function find(list, key) {
    return list.find((one) => one.key === key) || list[0];
  }

  /* Entries to show, in order. */
  function select(index, state) {
    const run = runNumber(index, state), theta = Number(state.theta);
    const show = find(offered(SHOWS, index), state.show), sort = find(offered(SORTS, index), state.sort);
    const chosen = candidates(index, state).filter((entry) => show.test(entry, run, theta));
    if (!sort.by) return chosen;
    return chosen.map((entry) => [sort.by(entry, run), entry]).sort((a, b) => a[0] - b[0] || a[1].number - b[1].number).map((pair) => pair[1]);
  }

  /* How many entries each verdict has. */
  function counts(index, state) {
    const run = runNumber(index, state), theta = Number(state.theta), pool = candidates(index, state);
    return Object.fromEntries(offered(SHOWS, index).map((show) => [show.key, pool.filter((e) => show.test(e, run, theta)).length]));
  }

  /* "#show=unproven&run=chance", or "#some_entry" as a short form of "#entry=some_entry". */
  function parse(hash) {
    const body = hash.replace(/^#/, ""), state = { ...DEFAULTS };
    if (!body.includes("=")) {
      try {
        state.entry = decodeURIComponent(body);
      } catch {
        state.entry = body; /* a stray % */
      }
      return state;
    }
    for (const [name, value] of new URLSearchParams(body)) if (name in DEFAULTS) state[name] = value;
    const known = { show: SHOWS.map((one) => one.key), sort: SORTS.map((one) => one.key), theta: THETAS, view: ["one", "side"] };
    for (const [name, values] of Object.entries(known)) if (!values.includes(state[name])) state[name] = DEFAULTS[name];
    return state;
  }

  function format(state) {
    const changed = Object.entries(state).filter(([name, value]) => name in DEFAULTS && value !== DEFAULTS[name]);
    return "#" + new URLSearchParams(changed).toString();
  }

  return { DEFAULTS, THETAS, SHOWS, SORTS, offered, right, proven, select, counts, parse, format, runNumber };
})();

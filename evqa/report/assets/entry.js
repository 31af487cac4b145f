"use strict";
/* The card of one entry: clip on the left, question, options and scores on the right. */
const evqaEntry = (() => {
  const { element, node, button, percent, runColour } = evqaDom;
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  /* What is shown of an entry's scores, and under which name. */
  const NUMBERS = [["mIoU", "tIoU"], ["mIoP", "IoP"], ["J", "J"], ["F", "F"], ["J&F", "J&F"], ["vIoU", "vIoU"]];
  const VERDICTS = [["accuracy", "answer"], ["qa_accuracy", "answer"], ["temporal_accuracy", "time"], ["spatial_accuracy", "region"]];

  function dot(i) {
    return node("i", { class: "dot", style: `--lane: var(--run-${i})` });
  }

  /* Beside an option: whether it is right, and which runs chose it. */
  function marks(right, chosenBy, index) {
    const mark = element("span", "mark");
    if (right) mark.append(element("span", "t", "✓ right"));
    for (const i of chosenBy) mark.append(node("span", { class: "s", style: `--lane: var(--run-${i})` }, index.runs.length > 1 ? "● " + index.runs[i].name : "● chosen"));
    return mark;
  }

  function choosers(entry, test) {
    return entry.runs.flatMap((said, i) => (test(said) ? [i] : []));
  }

  function option(letter, text, right, chosenBy, run, index) {
    const chosen = chosenBy.includes(run);
    return node("li", { class: (right ? "right " : "") + (chosen ? "chosen" : ""), style: chosen ? `--lane: var(--run-${run})` : null },
      element("span", "letter", letter), element("span", "words", text), marks(right, chosenBy, index));
  }

  function options(entry, run, index) {
    const list = element("ul", "options");
    entry.candidates.forEach((text, i) => {
      list.append(option(LETTERS[i] || String(i + 1), text, i === entry.answer_index, choosers(entry, (said) => said.answer_index === i), run, index));
    });
    /* Answers that are none of the options. */
    entry.runs.forEach((said, i) => {
      if (said.answer_index === null && said.answer) list.append(option("?", said.answer, false, [i], run, index));
    });
    return list;
  }

  function verdicts(v) {
    return VERDICTS.filter(([key]) => v[key] !== undefined).map(([key, word]) => [`${word} ${v[key] ? "right" : "wrong"}`, v[key] ? "good" : "bad"]);
  }

  function backed(said, theta) {
    const proven = evqaFilters.proven(said, theta), right = evqaFilters.right(said);
    if (proven === null || right === null || said.v.temporal_accuracy !== undefined) return [];
    return [right && proven ? [`backed by evidence at ${theta}`, "good"] : [`not backed at ${theta}`, "bad"]];
  }

  function chips(said, theta) {
    const list = element("ul", "chips");
    for (const [text, tone] of verdicts(said.v)) list.append(element("li", tone, text));
    for (const [key, word] of NUMBERS) if (said.v[key] !== undefined) list.append(element("li", "", `${word} ${percent(said.v[key])}`));
    for (const [text, tone] of backed(said, theta)) list.append(element("li", tone, text));
    if (said.confidence !== undefined) list.append(element("li", "", `confidence ${percent(said.confidence)}`));
    return list;
  }

  /* Several runs: a row each; the name chooses the run whose masks are drawn. */
  function table(entry, run, index, theta, choose) {
    const numbers = NUMBERS.filter(([key]) => entry.runs.some((said) => said.v[key] !== undefined));
    const words = VERDICTS.filter(([key]) => entry.runs.some((said) => said.v[key] !== undefined));
    const head = node("tr", {}, element("th", "", "run"), ...words.map(([, word]) => node("th", { scope: "col" }, word)), ...numbers.map(([, word]) => node("th", { scope: "col" }, word)));
    const body = element("tbody");
    entry.runs.forEach((said, i) => {
      const name = button("", "plain", () => choose(i));
      name.append(dot(i), index.runs[i].name);
      name.setAttribute("aria-pressed", String(i === run));
      const line = node("tr", { class: i === run ? "current" : null }, node("th", { scope: "row" }, name));
      for (const [key] of words) line.append(element("td", said.v[key] ? "good" : "bad", said.v[key] === undefined ? "–" : said.v[key] ? "✓ right" : "✗ wrong"));
      for (const [key] of numbers) line.append(element("td", key === "mIoU" || key === "J&F" ? (said.v[key] >= theta - 1e-9 ? "good" : "bad") : "", percent(said.v[key])));
      body.append(line);
    });
    return node("div", { class: "scroll runs", tabindex: 0, role: "region", "aria-label": "Scores of the runs" }, node("table", {}, node("thead", {}, head), body));
  }

  /* The two choices of evidence of the MCQ task. */
  function choices(entry, evidence, run, index) {
    const box = element("div"), said = entry.runs[run];
    const ends = evidence.temporal_options.flat().map((segment) => segment[1]);
    const duration = entry.duration || Math.max(1, ...ends);
    const line = element("div", "timeline still");
    evidence.temporal_options.forEach((segments, i) => {
      const right = i === evidence.temporal_answer, chosen = i === said.temporal_index;
      const colour = right ? "var(--truth)" : chosen ? `var(--run-${run})` : "var(--soft)";
      line.append(evqaStage.lane(colour, LETTERS[i] + (right ? " ✓" : "") + (chosen ? " ●" : ""), segments, duration, right || chosen ? "" : "quiet"));
    });
    box.append(line);
    const grid = element("div", "regions");
    evidence.spatial_options.forEach((path, i) => {
      const right = i === evidence.spatial_answer, chosen = i === said.spatial_index;
      grid.append(node("figure", { class: (right ? "right " : "") + (chosen ? "chosen" : ""), style: `--lane: var(--run-${run})` },
        node("img", { src: path, loading: "lazy", alt: `Region ${LETTERS[i]}${right ? ", right" : ""}${chosen ? ", chosen" : ""}` }),
        node("figcaption", {}, LETTERS[i], marks(right, choosers(entry, (one) => one.spatial_index === i), index))));
    });
    box.append(grid);
    return box;
  }

  function meta(entry, copied) {
    const link = node("a", { href: "#entry=" + encodeURIComponent(entry.id) }, entry.id);
    const copy = button("Copy link", "plain", () => copied(entry, copy));
    copy.setAttribute("aria-label", `Copy the link to ${entry.id}`);
    return node("div", { class: "meta" }, node("span", { class: "no" }, `${entry.number + 1}`), link,
      ...[entry.type, entry.source].filter(Boolean).map((tag) => element("span", "tag", tag)),
      entry.duration ? element("span", "", evqaDom.seconds(entry.duration)) : null, copy);
  }

  function notes(said, full, truth) {
    const out = (said.status === "ok" ? [] : [said.status]).concat(full.problems).map((problem) => element("p", "note", problem));
    for (const [side, words] of [[full, "The run's"], [truth, "The reference's"]]) {
      if (side.every > 1) out.push(element("p", "meta", `${words} masks are large: the page keeps one of ${side.every} frames. Scores use all.`));
    }
    if (full.expressions.length) out.push(element("p", "meta", "Objects named: " + full.expressions.join("; ")));
    if (full.raw_text) out.push(node("details", {}, element("summary", "", "What the system wrote"), element("pre", "", full.raw_text)));
    return out;
  }

  /* Fill a list item. Returns the Stage. */
  function fill(item, entry, evidence, index, state, act) {
    const { run, theta, sideBySide } = state, said = entry.runs[run], full = evidence.runs[run];
    const left = element("div", "left"), right = element("div", "text");
    const heading = element("h3", "", entry.question);
    heading.id = `question-${entry.number}`;
    right.append(meta(entry, act.copy), heading, options(entry, run, index));
    if (evidence.temporal_options) right.append(choices(entry, evidence, run, index));
    right.append(index.runs.length > 1 ? table(entry, run, index, theta, act.choose) : chips(said, theta));
    if (index.runs.length > 1) {
      const verdict = backed(said, theta), list = element("ul", "chips");
      for (const [text, tone] of verdict) list.append(element("li", tone, `${index.runs[run].name}: ${text}`));
      if (verdict.length) right.append(list);
    }
    right.append(...notes(said, full, evidence.truth));
    const article = node("article", { class: "entry" + (sideBySide ? " wide" : ""), "aria-labelledby": heading.id, tabindex: -1 }, left, right);
    item.replaceChildren(article);
    const grounded = !evidence.temporal_options;
    const runs = evidence.runs.map((one, i) => ({
      name: index.runs[i].name, colour: `var(--run-${i})`, rgb: runColour(i).rgb, segments: one.segments, masks: one.masks, hold: one.hold,
      current: i === run, grounded,
    }));
    const view = { clip: entry.clip, poster: entry.poster, fps: entry.fps, duration: entry.duration, size: evidence.size || entry.size, video_id: entry.video_id, truth: evidence.truth };
    return new evqaStage.Stage(left, view, runs, { shown: state.shown, sideBySide });
  }

  /* What stands in a list item until it is looked at: enough to be found by a search of the browser. */
  function placeholder(item, entry, height) {
    const article = node("article", { class: "entry waiting", style: height ? `min-height: ${height}px` : null, tabindex: -1 },
      node("div", { class: "left" }, node("div", { class: "stage", style: entry.size ? `aspect-ratio: ${entry.size[1]} / ${entry.size[0]}` : null })),
      node("div", { class: "text" }, element("h3", "", entry.question)));
    item.replaceChildren(article);
  }

  return { fill, placeholder };
})();

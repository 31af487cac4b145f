"use strict";
/* The tables of scores at the top: one per protocol, a column per run, each number with its interval. */
const evqaScores = (() => {
  const { element, node, number } = evqaDom;

  function metricRow(index, metric, protocol) {
    const line = node("tr", {}, node("th", { scope: "row" }, metric));
    for (const run of index.runs) {
      const scores = run.scores[protocol], cell = element("td");
      if (!scores || scores.error) cell.textContent = "–";
      else {
        cell.textContent = number(scores.numbers[metric]);
        const interval = scores.intervals[metric];
        if (interval) cell.append(element("small", "", `[${number(interval[0])}, ${number(interval[1])}]`));
      }
      line.append(cell);
    }
    return line;
  }

  function table(index, protocol) {
    const body = element("tbody"), head = node("tr", {}, element("th", "", "percent"));
    index.runs.forEach((run, i) => {
      const name = node("th", { scope: "col" }, node("i", { class: "dot", style: `--lane: var(--run-${i})` }), run.name);
      head.append(name);
    });
    for (const group of protocol.groups) {
      if (!group.metrics.length) continue;
      body.append(node("tr", { class: "group" }, node("th", { scope: "colgroup", colspan: index.runs.length + 1 }, group.title)));
      for (const metric of group.metrics) body.append(metricRow(index, metric, protocol.name));
    }
    const figure = node("figure", {},
      node("figcaption", {}, protocol.name, element("small", "", protocol.about)),
      node("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Scores, ${protocol.name}` }, node("table", {}, node("thead", {}, head), body)));
    for (const run of index.runs) {
      const scores = run.scores[protocol.name];
      if (scores && scores.error) figure.append(element("p", "note", `${run.name}: ${scores.error}`));
    }
    return figure;
  }

  function draw(holder, index) {
    const tables = element("div", "tables");
    for (const protocol of index.protocols) tables.append(table(index, protocol));
    holder.replaceChildren(tables);
  }

  return { draw };
})();

"use strict";
/* The leaderboard's table. All text comes from submissions and is set as text, never as HTML. */
const evqaBoard = (() => {
  const { element, node, button, number } = evqaDom;
  let board, chosen = 0, sort = null;
  const open = new Set();

  const byId = (id) => document.getElementById(id);

  function table() {
    return board.tables[chosen];
  }

  function best(metric) {
    const values = table().rows.filter((row) => !row.baseline).map((row) => row.numbers[metric]).filter((v) => v !== undefined);
    return values.length ? Math.max(...values) : null;
  }

  function cell(row, metric, most) {
    const value = row.numbers[metric], interval = row.intervals[metric];
    const made = node("td", { class: "number" + (!row.baseline && value === most ? " best" : "") }, number(value));
    if (value === undefined) return made;
    if (interval) made.append(element("small", "", `[${number(interval[0])}, ${number(interval[1])}]`));
    const line = node("span", { class: "bar-line", "aria-hidden": "true" }), bar = element("i");
    bar.style.width = Math.max(0, Math.min(100, value)) + "%";
    line.append(bar);
    if (interval) {
      const range = element("u");
      range.style.left = Math.max(0, interval[0]) + "%";
      range.style.right = 100 - Math.min(100, interval[1]) + "%";
      line.append(range);
    }
    made.append(line);
    return made;
  }

  function facts(row) {
    const list = element("dl", "facts");
    const add = (name, value) => value && list.append(element("dt", "", name), node("dd", {}, value));
    add("description", row.description);
    add("authors", row.authors);
    add("model", row.model);
    /* Only https was accepted when the submission was checked; looked at again, because it becomes a link. */
    if (row.url && row.url.startsWith("https://")) add("more", node("a", { href: row.url, rel: "noopener nofollow" }, row.url));
    const failed = row.counts.num_failed ? `, ${row.counts.num_failed} of them failed` : "";
    add("entries", `${row.counts.num_samples}${failed}`);
    add("predictions", element("code", "", "sha256:" + row.predictions_sha256));
    add("references", element("code", "", "sha256:" + row.references_sha256));
    return list;
  }

  function details(row, columns) {
    const all = element("ul", "all");
    for (const metric of table().all) {
      if (row.numbers[metric] !== undefined) all.append(node("li", {}, element("span", "", metric + " "), number(row.numbers[metric])));
    }
    return node("tr", { class: "details" }, node("td", { colspan: columns }, facts(row), all));
  }

  function line(row, bests) {
    const name = button(row.system, "name", () => {
      if (!open.delete(row.system)) open.add(row.system);
      draw();
      document.querySelector(`button.name[data-system="${CSS.escape(row.system)}"]`)?.focus();
    });
    name.dataset.system = row.system;
    name.setAttribute("aria-expanded", String(open.has(row.system)));
    const note = row.baseline ? { chance: "the floor", oracle: "the ceiling" }[row.system] || "baseline" : row.authors;
    const title = node("th", { class: "system", scope: "row" }, name, note ? element("small", "", note) : null);
    return node("tr", { class: row.baseline ? "baseline" : null }, element("td", "", row.rank === null ? "" : row.rank), title,
      ...table().metrics.map((metric) => cell(row, metric, bests[metric])));
  }

  function heading(metric) {
    const by = sort || { metric: table().main, up: false }, on = by.metric === metric;
    const made = node("th", { scope: "col", "aria-sort": on ? (by.up ? "ascending" : "descending") : null });
    made.append(button(metric, "", () => {
      sort = { metric, up: on && !by.up };
      draw();
    }));
    return made;
  }

  function sorted() {
    const rows = [...table().rows];
    if (!sort) return rows;
    const value = (row) => (row.numbers[sort.metric] === undefined ? -1 : row.numbers[sort.metric]);
    return rows.sort((a, b) => (sort.up ? 1 : -1) * (value(a) - value(b)));
  }

  function draw() {
    const { metrics, about, protocol, version, task } = table(), bests = Object.fromEntries(metrics.map((m) => [m, best(m)]));
    const head = node("tr", {}, node("th", { scope: "col" }, "#"), node("th", { scope: "col", class: "system" }, "system"), ...metrics.map(heading));
    const body = element("tbody");
    for (const row of sorted()) {
      body.append(line(row, bests));
      if (open.has(row.system)) body.append(details(row, metrics.length + 2));
    }
    const holder = byId("table");
    holder.replaceChildren(node("table", { class: "board" }, node("thead", {}, head), body));
    byId("about").textContent = `Task ${task}, protocol ${protocol} ${version}: ${about}.`;
    document.querySelectorAll("#controls button").forEach((one, i) => one.setAttribute("aria-pressed", String(i === chosen)));
  }

  return {
    show(data) {
      board = data;
      document.title = byId("title").textContent = board.title;
      const group = node("div", { class: "seg", role: "group", "aria-label": "Task and protocol" });
      board.tables.forEach((one, i) => {
        group.append(button(`${one.task} · ${one.protocol}`, "", () => {
          chosen = i;
          sort = null;
          draw();
        }));
      });
      byId("controls").append(group);
      for (const [name, value] of Object.entries({ tabindex: 0, role: "region", "aria-label": "Table of systems" })) byId("table").setAttribute(name, value);
      draw();
    },
  };
})();

"use strict";
/* Distributions over the entries as inline SVG. Each can be saved as SVG or PNG; a saved one is drawn anew on white, so
   that it is fit for a paper whatever the colours of the screen. */
const evqaPlots = (() => {
  const { element, node, button, number, percent, runColour } = evqaDom;
  const WIDTH = 340, HEIGHT = 228, LEFT = 40, RIGHT = 12, TOP = 26, BOTTOM = 38;
  const PLOT_WIDTH = WIDTH - LEFT - RIGHT, PLOT_HEIGHT = HEIGHT - TOP - BOTTOM;
  const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 4", "12 4"];
  const MOST_DOTS = 400; /* in a scatter; beyond, only the means are drawn */
  const FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif";

  /* Colours by role: of the style sheet on the screen, fixed ones in a file. */
  const SCREEN = { ink: "var(--ink)", soft: "var(--soft)", line: "var(--line)", good: "var(--good)", back: "none", run: (i) => `var(--run-${i})` };
  const PRINT = { ink: "#111", soft: "#555", line: "#ccc", good: "#0f7a4b", back: "#fff", run: (i) => runColour(i).ink };

  function svg(tag, attributes, style, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    Object.assign(made.style, style || {});
    made.append(...children);
    return made;
  }

  function label(x, y, words, colour, anchor, size) {
    return svg("text", { x, y, "text-anchor": anchor || "middle" }, { fill: colour, font: `${size || 11}px ${FONT}` }, words);
  }

  function canvas(colours, title, summary) {
    const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${summary}` });
    if (colours.back !== "none") root.append(svg("rect", { width: WIDTH, height: HEIGHT }, { fill: colours.back }));
    return root;
  }

  const px = (share) => LEFT + share * PLOT_WIDTH, py = (share) => TOP + (1 - share) * PLOT_HEIGHT;

  function axes(root, colours, xTicks, yTicks, xTitle, yTitle) {
    for (const [share, words] of yTicks) {
      root.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(share), y2: py(share) }, { stroke: colours.line, strokeWidth: share ? 0.6 : 1.2 }));
      root.append(label(LEFT - 5, py(share) + 4, words, colours.soft, "end"));
    }
    for (const [share, words] of xTicks) root.append(label(px(share), HEIGHT - BOTTOM + 15, words, colours.soft));
    root.append(label(px(0.5), HEIGHT - 6, xTitle, colours.soft));
    const upright = label(0, 0, yTitle, colours.soft);
    upright.setAttribute("transform", `translate(11 ${py(0.5)}) rotate(-90)`);
    root.append(upright);
  }

  function legend(root, colours, runs) {
    let x = LEFT;
    for (const [i, words] of runs) {
      const short = words.length > 26 ? words.slice(0, 25) + "…" : words;
      root.append(svg("line", { x1: x, x2: x + 16, y1: 11, y2: 11, "stroke-dasharray": DASHES[i % DASHES.length] }, { stroke: colours.run(i), strokeWidth: 2.4 }));
      root.append(label(x + 20, 15, short, colours.ink, "start"));
      x += 32 + 6.1 * short.length;
    }
  }

  function mean(values) {
    return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
  }

  function values(index, run, metric) {
    return index.entries.map((e) => e.runs[run].v[metric]).filter((v) => v !== undefined);
  }

  /* Round tick marks for counts. */
  function countTicks(most) {
    const rough = most / 4, power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
    const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough));
    return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => [(i * step) / most, String(i * step)]);
  }

  const PERCENT_TICKS = [0, 0.25, 0.5, 0.75, 1].map((share) => [share, String(100 * share)]);

  /* ---------------------------------------------------------------------------------- histogram */
  function bins(all, count) {
    const out = new Array(count).fill(0);
    for (const v of all) out[Math.max(0, Math.min(count - 1, Math.floor(v * count + 1e-9)))] += 1;
    return out;
  }

  function histogram(index, metric, name) {
    const runs = index.runs.map((run, i) => ({ i, name: run.name, all: values(index, i, metric) })).filter((run) => run.all.length);
    if (!runs.length) return null;
    const count = index.entries.length > 200 ? 20 : 10;
    for (const run of runs) run.bins = bins(run.all, count);
    const most = Math.max(...runs.flatMap((run) => run.bins));
    return {
      key: "hist-" + metric.replace(/\W/g, ""), title: `${name} of the entries`,
      summary: runs.map((run) => `${run.name}: mean ${percent(mean(run.all))}, ${run.bins[0]} of ${run.all.length} below ${100 / count}`).join("; "),
      draw(root, colours) {
        axes(root, colours, PERCENT_TICKS, countTicks(most), `${name} (%)`, "entries");
        for (const run of runs) {
          const steps = run.bins.map((n, b) => `L${px(b / count)} ${py(n / most)} L${px((b + 1) / count)} ${py(n / most)}`).join(" ");
          root.append(svg("path", { d: `M${px(0)} ${py(0)} ${steps} L${px(1)} ${py(0)} Z`, "stroke-dasharray": DASHES[run.i % DASHES.length] },
            { fill: colours.run(run.i), fillOpacity: 0.16, stroke: colours.run(run.i), strokeWidth: 1.8, strokeLinejoin: "round" }));
        }
        legend(root, colours, runs.map((run) => [run.i, `${run.name}, mean ${percent(mean(run.all))}`]));
      },
    };
  }

  /* ------------------------------------------------------------------------------------- matrix */
  function matrix(index, theta, link) {
    const cells = [["unproven", true, false], ["proven", true, true], ["neither", false, false], ["unanswered", false, true]];
    const tables = index.runs.map((run, i) => {
      const judged = index.entries.map((e) => [evqaFilters.right(e.runs[i]), evqaFilters.proven(e.runs[i], Number(theta))]);
      const asked = judged.filter(([a, b]) => a !== null && b !== null).length;
      return { name: run.name, i, asked, counts: cells.map(([key, a, b]) => [key, a, b, judged.filter(([x, y]) => x === a && y === b).length]) };
    }).filter((table) => table.asked);
    if (!tables.length) return null;
    const shown = tables.slice(0, 3), width = Math.min(150, (WIDTH - 64) / shown.length), cell = (width - 14) / 2, high = 66;
    const at = index.task === "gen" ? ` at ${theta}` : "";
    return {
      key: "matrix", title: `Answer and evidence${at}`,
      summary: tables.map((t) => `${t.name}: ${t.counts.map(([, a, b, n]) => `answer ${a ? "right" : "wrong"} and evidence ${b ? "right" : "wrong"} ${n}`).join(", ")}`).join("; "),
      draw(root, colours) {
        root.append(label(60, 78, "answer", colours.soft, "end"), label(60, 92, "right", colours.soft, "end"));
        root.append(label(60, 78 + high, "answer", colours.soft, "end"), label(60, 92 + high, "wrong", colours.soft, "end"));
        shown.forEach((table, n) => {
          const left = 66 + n * width;
          root.append(label(left + cell, 34, table.name.length > 20 ? table.name.slice(0, 19) + "…" : table.name, colours.ink, "middle", 12));
          table.counts.forEach(([key, answered, evident, count], c) => {
            const x = left + (c % 2) * cell, y = 44 + (c > 1 ? high : 0);
            const box = svg("rect", { x: x + 1, y: y + 1, width: cell - 2, height: high - 2, rx: 6 },
              { fill: key === "proven" ? colours.good : colours.run(table.i), fillOpacity: 0.08 + 0.55 * (count / table.asked) });
            const text = label(x + cell / 2, y + high / 2 + 2, String(count), colours.ink, "middle", 17);
            const share = label(x + cell / 2, y + high / 2 + 18, percent(count / table.asked) + " %", colours.ink, "middle", 10);
            const cellNode = svg("a", { href: link({ show: key, run: table.name }), "aria-label": `${table.name}: answer ${answered ? "right" : "wrong"}, evidence ${evident ? "right" : "wrong"}: ${count} entries` }, {}, box, text, share);
            root.append(cellNode);
          });
          root.append(label(left + cell / 2, 56 + 2 * high, "evidence", colours.soft, "middle", 10), label(left + cell / 2, 67 + 2 * high, "wrong", colours.soft, "middle", 10));
          root.append(label(left + 1.5 * cell, 56 + 2 * high, "evidence", colours.soft, "middle", 10), label(left + 1.5 * cell, 67 + 2 * high, "right", colours.soft, "middle", 10));
        });
        root.setAttribute("role", "group");
        if (tables.length > shown.length) root.append(label(WIDTH / 2, HEIGHT - 8, `and ${tables.length - shown.length} more runs`, colours.soft));
      },
    };
  }

  /* --------------------------------------------------------------------- score against clip length */
  /* Entries by length of clip in groups of equal size, each with mean and 95 % normal interval of the mean. */
  function groups(pairs, count) {
    const sorted = [...pairs].sort((a, b) => a[0] - b[0]), out = [];
    for (let g = 0; g < count; g++) {
      const part = sorted.slice(Math.floor((g * sorted.length) / count), Math.floor(((g + 1) * sorted.length) / count));
      if (!part.length) continue;
      const m = mean(part.map((p) => p[1])), variance = mean(part.map((p) => (p[1] - m) ** 2)) || 0;
      out.push({ x: mean(part.map((p) => p[0])), mean: m, half: part.length > 1 ? (1.96 * Math.sqrt(variance)) / Math.sqrt(part.length - 1) : 0, n: part.length });
    }
    return out;
  }

  function againstLength(index, metric, name) {
    const runs = index.runs.map((run, i) => ({
      i, name: run.name,
      pairs: index.entries.filter((e) => e.duration && e.runs[i].v[metric] !== undefined).map((e) => [e.duration, e.runs[i].v[metric]]),
    })).filter((run) => run.pairs.length > 3);
    if (!runs.length) return null;
    const longest = Math.max(...runs[0].pairs.map((p) => p[0])), shortest = Math.min(...runs[0].pairs.map((p) => p[0]));
    const span = longest - shortest || 1, count = Math.max(2, Math.min(8, Math.floor(runs[0].pairs.length / 8)));
    const at = (length) => 0.03 + (0.94 * (length - shortest)) / span;
    for (const run of runs) run.groups = groups(run.pairs, count);
    return {
      key: "length-" + metric.replace(/\W/g, ""), title: `${name} against clip length`,
      summary: runs.map((run) => `${run.name}: ${run.groups.map((g) => `${number(g.x)} s ${percent(g.mean)}`).join(", ")}`).join("; "),
      draw(root, colours) {
        const xTicks = [0, 0.5, 1].map((share) => [0.03 + 0.94 * share, number(shortest + share * span) + " s"]);
        axes(root, colours, xTicks, PERCENT_TICKS, "length of the clip", `${name} (%)`);
        for (const run of runs) {
          const colour = colours.run(run.i);
          if (runs.length * run.pairs.length <= MOST_DOTS) {
            for (const [length, value] of run.pairs) root.append(svg("circle", { cx: px(at(length)), cy: py(value), r: 2 }, { fill: colour, fillOpacity: 0.3 }));
          }
          for (const g of run.groups) {
            const low = Math.max(0, g.mean - g.half), high = Math.min(1, g.mean + g.half);
            root.append(svg("line", { x1: px(at(g.x)), x2: px(at(g.x)), y1: py(low), y2: py(high) }, { stroke: colour, strokeWidth: 1.4 }));
            root.append(svg("circle", { cx: px(at(g.x)), cy: py(g.mean), r: 3.4 }, { fill: colour }));
          }
          const path = run.groups.map((g, n) => `${n ? "L" : "M"}${px(at(g.x))} ${py(g.mean)}`).join(" ");
          root.append(svg("path", { d: path, "stroke-dasharray": DASHES[run.i % DASHES.length] }, { fill: "none", stroke: colour, strokeWidth: 1.6 }));
        }
        legend(root, colours, runs.map((run) => [run.i, run.name]));
      },
    };
  }

  /* -------------------------------------------------------------------------------- reliability */
  /* Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: accuracy by confidence, and the expected
     calibration error over ten bins of equal width. */
  function calibration(pairs) {
    const out = Array.from({ length: 10 }, () => []);
    for (const [confidence, right] of pairs) out[Math.min(9, Math.floor(10 * confidence + 1e-9))].push([confidence, right]);
    const points = out.filter((bin) => bin.length).map((bin) => ({ x: mean(bin.map((p) => p[0])), y: mean(bin.map((p) => p[1])), n: bin.length }));
    return { points, ece: points.reduce((sum, p) => sum + (p.n / pairs.length) * Math.abs(p.x - p.y), 0) };
  }

  function reliability(index) {
    const runs = index.runs.map((run, i) => ({
      i, name: run.name,
      pairs: index.entries.filter((e) => e.runs[i].confidence !== undefined && evqaFilters.right(e.runs[i]) !== null)
        .map((e) => [e.runs[i].confidence, evqaFilters.right(e.runs[i]) ? 1 : 0]),
    })).filter((run) => run.pairs.length);
    if (!runs.length) return null;
    for (const run of runs) Object.assign(run, calibration(run.pairs));
    return {
      key: "reliability", title: "Reliability of the confidence",
      summary: runs.map((run) => `${run.name}: expected calibration error ${percent(run.ece)} over ${run.pairs.length} answers`).join("; "),
      draw(root, colours) {
        axes(root, colours, PERCENT_TICKS, PERCENT_TICKS, "confidence that the system gave (%)", "accuracy (%)");
        root.append(svg("line", { x1: px(0), y1: py(0), x2: px(1), y2: py(1), "stroke-dasharray": "3 3" }, { stroke: colours.soft, strokeWidth: 1 }));
        for (const run of runs) {
          const most = Math.max(...run.points.map((p) => p.n));
          root.append(svg("path", { d: run.points.map((p, n) => `${n ? "L" : "M"}${px(p.x)} ${py(p.y)}`).join(" "), "stroke-dasharray": DASHES[run.i % DASHES.length] }, { fill: "none", stroke: colours.run(run.i), strokeWidth: 1.6 }));
          for (const p of run.points) root.append(svg("circle", { cx: px(p.x), cy: py(p.y), r: 2.5 + 4 * Math.sqrt(p.n / most) }, { fill: colours.run(run.i), fillOpacity: 0.75 }));
        }
        legend(root, colours, runs.map((run) => [run.i, `${run.name}, ECE ${percent(run.ece)}`]));
      },
    };
  }

  /* ------------------------------------------------------------------------------------- saving */
  function drawn(plot, colours) {
    const root = canvas(colours, plot.title, plot.summary);
    plot.draw(root, colours);
    return root;
  }

  function file(plot) {
    const root = drawn(plot, PRINT);
    root.setAttribute("width", WIDTH);
    root.setAttribute("height", HEIGHT);
    return new XMLSerializer().serializeToString(root);
  }

  function offer(blob, name) {
    const link = node("a", { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function saveSvg(plot) {
    offer(new Blob([file(plot)], { type: "image/svg+xml" }), plot.key + ".svg");
  }

  function savePng(plot) {
    const image = new Image(), scale = 3;
    image.addEventListener("load", () => {
      const picture = element("canvas");
      picture.width = scale * WIDTH;
      picture.height = scale * HEIGHT;
      picture.getContext("2d").drawImage(image, 0, 0, picture.width, picture.height);
      picture.toBlob((blob) => offer(blob, plot.key + ".png"), "image/png");
    });
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(file(plot));
  }

  /* All plots that the data give. link: what an address with another state looks like. */
  function draw(holder, index, theta, link) {
    const plots = index.task === "gen"
      ? [matrix(index, theta, link), histogram(index, "mIoU", "tIoU"), histogram(index, "J&F", "J&F"), againstLength(index, "mIoU", "tIoU"), againstLength(index, "J&F", "J&F"), reliability(index)]
      : [matrix(index, theta, link), againstLength(index, "qa_accuracy", "accuracy"), reliability(index)];
    holder.replaceChildren(...plots.filter(Boolean).map((plot) => {
      const figure = node("figure", { "data-plot": plot.key }), caption = element("figcaption", "", plot.title), save = element("span", "save");
      for (const [kind, act] of [["SVG", saveSvg], ["PNG", savePng]]) {
        const one = button(kind, "plain", () => act(plot));
        one.setAttribute("aria-label", `Save "${plot.title}" as ${kind}`);
        save.append(one);
      }
      caption.append(save);
      figure.append(caption, drawn(plot, SCREEN));
      return figure;
    }));
  }

  return { draw, groups, calibration };
})();

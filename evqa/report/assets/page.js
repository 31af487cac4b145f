"use strict";
/* Builds the page from data/index.js; each entry's evidence comes from its own file when it scrolls into view. */
var evqaPage = (function () {
  var element = evqaStage.element;
  var LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  var state = { run: 0, shown: { truth: true, said: true } };
  var index, waiting = {}, loaded = {}, stages = {};

  function number(value) {
    return value === null || value === undefined ? "–" : value.toFixed(1);
  }

  /* ------------------------------------------------------------------------------- scores */
  function metricRow(metric, protocol) {
    var line = element("tr"), name = element("th", "", metric);
    name.scope = "row";
    line.appendChild(name);
    index.runs.forEach(function (run) {
      var scores = run.scores[protocol], cell = element("td");
      if (!scores || scores.error) cell.textContent = "–";
      else {
        cell.textContent = number(scores.numbers[metric]);
        var interval = scores.intervals[metric];
        if (interval) cell.appendChild(element("small", "", "[" + number(interval[0]) + ", " + number(interval[1]) + "]"));
      }
      line.appendChild(cell);
    });
    return line;
  }

  function scoreTable(protocol) {
    var figure = element("figure"), caption = element("figcaption", "", protocol.name);
    caption.appendChild(element("small", "", protocol.about));
    figure.appendChild(caption);
    var table = element("table"), head = element("thead"), row = element("tr");
    row.appendChild(element("th", "", "percent"));
    index.runs.forEach(function (run) {
      var cell = element("th", "", run.name);
      cell.scope = "col";
      row.appendChild(cell);
    });
    head.appendChild(row);
    table.appendChild(head);
    var body = element("tbody");
    protocol.groups.forEach(function (group) {
      if (!group.metrics.length) return;
      var heading = element("tr", "group"), title = element("th", "", group.title);
      title.colSpan = index.runs.length + 1;
      title.scope = "colgroup";
      heading.appendChild(title);
      body.appendChild(heading);
      group.metrics.forEach(function (metric) { body.appendChild(metricRow(metric, protocol.name)); });
    });
    table.appendChild(body);
    figure.appendChild(table);
    index.runs.forEach(function (run) {
      var scores = run.scores[protocol.name];
      if (scores && scores.error) figure.appendChild(element("p", "note", run.name + ": " + scores.error));
    });
    return figure;
  }

  function header() {
    document.title = index.title;
    document.getElementById("title").textContent = index.title;
    document.getElementById("subtitle").textContent = index.subtitle;
    document.getElementById("footer").textContent = index.footer;
    var tables = element("div", "tables");
    index.protocols.forEach(function (protocol) { tables.appendChild(scoreTable(protocol)); });
    document.getElementById("scores").appendChild(tables);
    var controls = document.getElementById("controls");
    if (index.runs.length > 1) {
      var group = element("div", "seg");
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", "Predictions of");
      index.runs.forEach(function (run, i) {
        var button = element("button", "", run.name);
        button.type = "button";
        button.setAttribute("aria-pressed", String(i === state.run));
        button.addEventListener("click", function () { choose(i); });
        group.appendChild(button);
      });
      controls.appendChild(group);
    }
  }

  function choose(run) {
    state.run = run;
    document.querySelectorAll("#controls .seg button").forEach(function (button, i) {
      button.setAttribute("aria-pressed", String(i === run));
    });
    Object.keys(stages).forEach(function (id) {
      if (stages[id]) stages[id].pause();
    });
    stages = {};
    document.querySelectorAll("#entries > li").forEach(function (item) {
      if (item.dataset.built) {
        item.dataset.built = "";
        build(item);
      }
    });
  }

  /* ------------------------------------------------------------------------------- entries */
  function marks(right, chosen) {
    var mark = element("span", "mark");
    if (right) mark.appendChild(element("span", "t", "✓ right"));
    if (chosen) mark.appendChild(element("span", "s", "● chosen"));
    return mark;
  }

  function classes(right, chosen) {
    return (right ? "right " : "") + (chosen ? "chosen" : "");
  }

  function options(entry, said) {
    var list = element("ul", "options");
    entry.candidates.forEach(function (text, i) {
      var right = i === entry.answer_index, chosen = i === said.answer_index;
      var item = element("li", classes(right, chosen));
      item.appendChild(element("span", "letter", LETTERS[i]));
      item.appendChild(element("span", "", text));
      item.appendChild(marks(right, chosen));
      list.appendChild(item);
    });
    if (said.answer_index === null && said.answer) {
      var other = element("li", "chosen");
      other.appendChild(element("span", "letter", "?"));
      other.appendChild(element("span", "", said.answer));
      other.appendChild(marks(false, true));
      list.appendChild(other);
    }
    return list;
  }

  function chips(said) {
    var list = element("ul", "chips");
    said.chips.forEach(function (chip) {
      list.appendChild(element("li", chip[2], chip[0] + (chip[1] === null ? "" : " " + chip[1])));
    });
    return list;
  }

  function choices(entry, evidence, said) {
    var box = element("div");
    var duration = entry.duration || Math.max.apply(null, evidence.temporal_options.map(function (o) {
      return Math.max.apply(null, o.map(function (s) { return s[1]; }).concat([1]));
    }));
    var line = element("div", "timeline");
    line.style.cursor = "default";
    evidence.temporal_options.forEach(function (segments, i) {
      var right = i === evidence.temporal_answer, chosen = i === said.temporal_index;
      var node = evqaStage.lane(right ? "t" : "s", LETTERS[i] + (right ? " ✓" : "") + (chosen ? " ●" : ""), segments, duration);
      if (!right && !chosen) node.style.opacity = 0.45;
      line.appendChild(node);
    });
    box.appendChild(line);
    var grid = element("div", "regions");
    evidence.spatial_options.forEach(function (path, i) {
      var right = i === evidence.spatial_answer, chosen = i === said.spatial_index;
      var figure = element("figure", classes(right, chosen)), image = element("img");
      image.src = path;
      image.loading = "lazy";
      image.alt = "Region " + LETTERS[i];
      figure.appendChild(image);
      var caption = element("figcaption", "", LETTERS[i]);
      caption.appendChild(marks(right, chosen));
      figure.appendChild(caption);
      grid.appendChild(figure);
    });
    box.appendChild(grid);
    return box;
  }

  function fill(item, entry, evidence) {
    var light = entry.runs[state.run], full = evidence.runs[state.run];
    var article = element("article", "entry"), left = element("div"), right = element("div");
    article.id = entry.id;
    article.setAttribute("aria-label", entry.question);
    var meta = element("div", "meta"), link = element("a", "", entry.id);
    link.href = "#" + encodeURIComponent(entry.id);
    meta.appendChild(link);
    entry.tags.forEach(function (tag) { meta.appendChild(element("span", "", tag)); });
    right.appendChild(meta);
    right.appendChild(element("h3", "", entry.question));
    right.appendChild(options(entry, light));
    if (evidence.temporal_options) right.appendChild(choices(entry, evidence, light));
    right.appendChild(chips(light));
    (light.status === "ok" ? [] : [light.status]).concat(full.problems).forEach(function (problem) {
      right.appendChild(element("p", "note", problem));
    });
    if (full.expressions.length) right.appendChild(element("p", "meta", "Objects named: " + full.expressions.join("; ")));
    if (full.raw_text) {
      var details = element("details");
      details.appendChild(element("summary", "", "What the system wrote"));
      details.appendChild(element("pre", "", full.raw_text));
      right.appendChild(details);
    }
    article.appendChild(left);
    article.appendChild(right);
    item.replaceChildren(article);
    var view = {
      clip: entry.clip, fps: entry.fps, duration: entry.duration, size: evidence.size || entry.size,
      video_id: entry.video_id, truth: evidence.truth,
    };
    full.grounded = !evidence.temporal_options;
    stages[entry.id] = new evqaStage.Stage(left, view, full, state.shown);
  }

  function build(item) {
    if (item.dataset.built) return;
    item.dataset.built = "yes";
    var entry = index.entries[Number(item.dataset.number)];
    if (loaded[entry.id]) return fill(item, entry, loaded[entry.id]);
    waiting[entry.id] = item;
    var script = document.createElement("script");
    script.src = entry.file;
    script.onerror = function () { item.appendChild(element("p", "note", "missing file: " + entry.file)); };
    document.body.appendChild(script);
  }

  function list() {
    var holder = document.getElementById("entries");
    index.entries.forEach(function (entry, i) {
      var item = element("li"), article = element("article", "entry");
      item.dataset.number = i;
      article.id = entry.id;
      article.style.minHeight = "420px";
      article.appendChild(element("h3", "", entry.question));
      item.appendChild(article);
      holder.appendChild(item);
    });
    var observer = new IntersectionObserver(function (seen) {
      seen.forEach(function (one) {
        if (one.isIntersecting) build(one.target);
        else {
          var stage = stages[index.entries[Number(one.target.dataset.number)].id];
          if (stage) stage.pause();
        }
      });
    }, { rootMargin: "600px" });
    Array.prototype.forEach.call(holder.children, function (item) { observer.observe(item); });
    if (location.hash) {
      var target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target) target.scrollIntoView();
    }
  }

  return {
    index: function (data) {
      index = data;
      header();
      list();
    },
    entry: function (id, evidence) {
      loaded[id] = evidence;
      var item = waiting[id];
      delete waiting[id];
      if (item) fill(item, index.entries[Number(item.dataset.number)], evidence);
    },
    stages: function () { return stages; },
  };
})();

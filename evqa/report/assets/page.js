"use strict";
/* Builds the page from data/index.js. There is a list item per entry, but only those near the screen are filled; each
   one's evidence comes from a file of its own when it is needed, and what is far away is let go of again. */
const evqaPage = (() => {
  const { element, node, button } = evqaDom;
  const NEAR = "700px"; /* of the screen: filled */
  const FAR = "4000px"; /* beyond: emptied */
  const KEPT = 60; /* entries whose evidence stays in memory */
  const RUSH = 160; /* pixels scrolled since the last frame */
  let index, state, order = [], items = [], watch = {}, current = -1;
  const wanted = new Set(), pumped = { on: false, y: 0 }; /* entries to fill, by number */
  const shown = { truth: true, said: true }, waiting = new Map(), loaded = new Map(), stages = new Map();

  const byId = (id) => document.getElementById(id);

  function settings() {
    const run = evqaFilters.runNumber(index, state);
    return { run, theta: Number(state.theta), sideBySide: state.view === "side" && index.runs.length > 1 && index.task === "gen", shown };
  }

  /* ------------------------------------------------------------------------------- one entry */
  function fill(entry, evidence) {
    const item = items[entry.number], focused = item.firstElementChild === document.activeElement;
    stages.get(entry.number)?.sleep();
    stages.set(entry.number, evqaEntry.fill(item, entry, evidence, index, settings(), { choose: (run) => change({ run: index.runs[run].name }), copy }));
    if (focused) item.firstElementChild.focus({ preventScroll: true });
    if (item.dataset.seen) stages.get(entry.number).wake();
  }

  /* Fetch an entry's evidence; it arrives through arrived(). */
  function fetch(entry) {
    const script = document.createElement("script");
    waiting.set(entry.id, entry);
    script.src = entry.file;
    script.onload = () => script.remove();
    script.onerror = () => {
      script.remove();
      waiting.delete(entry.id);
      wanted.delete(entry.number);
      items[entry.number].append(element("p", "note", "missing file: " + entry.file));
    };
    document.body.append(script);
  }

  function build(entry) {
    if (stages.has(entry.number)) return;
    const evidence = loaded.get(entry.id);
    if (evidence) fill(entry, evidence);
    else if (!waiting.has(entry.id)) fetch(entry);
  }

  /* One entry a frame at most, and none while the reader rushes past: scrolling stays smooth. */
  function pump() {
    const rushed = Math.abs(scrollY - pumped.y) > RUSH;
    pumped.y = scrollY;
    if (!rushed) {
      for (const number of wanted) {
        const entry = index.entries[number];
        if (waiting.has(entry.id)) continue;
        const arrives = !loaded.has(entry.id);
        build(entry);
        if (!arrives) {
          wanted.delete(number);
          break;
        }
      }
    }
    pumped.on = wanted.size > 0;
    if (pumped.on) requestAnimationFrame(pump);
  }

  function want(entry, near) {
    if (!near || stages.has(entry.number)) return wanted.delete(entry.number);
    wanted.add(entry.number);
    if (!pumped.on) {
      pumped.on = true;
      pumped.y = scrollY;
      requestAnimationFrame(pump);
    }
  }

  function empty(entry) {
    const stage = stages.get(entry.number), item = items[entry.number];
    if (!stage) return;
    const height = item.firstElementChild.offsetHeight;
    stage.sleep();
    stages.delete(entry.number);
    evqaEntry.placeholder(item, entry, height);
  }

  function arrived(id, evidence) {
    loaded.set(id, evidence);
    if (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
    waiting.delete(id); /* pump() fills it, if it is still near */
  }

  async function copy(entry, clicked) {
    const address = location.href.replace(/#.*/, "") + "#entry=" + encodeURIComponent(entry.id);
    try {
      await navigator.clipboard.writeText(address);
      clicked.textContent = "Copied";
    } catch {
      location.hash = "entry=" + encodeURIComponent(entry.id); /* then it can be copied from the address bar */
      clicked.textContent = "In the address bar";
    }
    setTimeout(() => (clicked.textContent = "Copy link"), 1500);
  }

  /* ------------------------------------------------------------------------------- the list */
  function makeItems() {
    items = index.entries.map((entry) => {
      const item = node("li", { "data-number": entry.number, "data-id": entry.id });
      evqaEntry.placeholder(item, entry);
      return item;
    });
    const entryOf = (seen) => index.entries[Number(seen.target.dataset.number)];
    watch.near = new IntersectionObserver((seen) => seen.forEach((one) => want(entryOf(one), one.isIntersecting)), { rootMargin: NEAR });
    watch.far = new IntersectionObserver((seen) => seen.forEach((one) => !one.isIntersecting && empty(entryOf(one))), { rootMargin: FAR });
    watch.screen = new IntersectionObserver((seen) => seen.forEach((one) => look(one.target, one.isIntersecting)));
  }

  /* Looked at: its clip is loaded. Left: it stops. */
  function look(item, seen) {
    const number = Number(item.dataset.number);
    clearTimeout(item.timer);
    if (seen) {
      item.timer = setTimeout(() => {
        item.dataset.seen = "yes";
        stages.get(number)?.wake();
      }, 150); /* not while scrolling past */
    } else {
      delete item.dataset.seen;
      stages.get(number)?.pause();
    }
  }

  function list() {
    for (const one of Object.values(watch)) one.disconnect();
    order = evqaFilters.select(index, state);
    for (const [number, stage] of stages) {
      stage.sleep();
      stages.delete(number);
      evqaEntry.placeholder(items[number], index.entries[number], items[number].firstElementChild.offsetHeight);
    }
    waiting.clear();
    wanted.clear();
    const holder = byId("entries");
    holder.replaceChildren(...order.map((entry) => items[entry.number]));
    order.forEach((entry) => Object.values(watch).forEach((one) => one.observe(items[entry.number])));
    byId("nothing").hidden = order.length > 0;
    byId("count").textContent = order.length === index.entries.length ? `${order.length} entries` : `${order.length} of ${index.entries.length} entries`;
    current = order.findIndex((entry) => entry.id === state.entry);
  }

  /* Bring an entry to the top and mark it. */
  function go(place) {
    if (place < 0 || place >= order.length) return;
    const entry = order[place], item = items[entry.number];
    document.querySelector("#entries > .current")?.classList.remove("current");
    item.classList.add("current");
    current = place;
    item.scrollIntoView({ block: "start" });
    want(entry, true);
    item.firstElementChild.focus({ preventScroll: true });
  }

  /* ------------------------------------------------------------------------------- state */
  function remember() {
    history.replaceState(null, "", evqaFilters.format(state));
  }

  /* The top of the list, with the bar above it. */
  function toList() {
    scrollTo(0, byId("entries-section").offsetTop - 4);
  }

  function change(values, quiet) {
    const kept = order[current];
    state = { ...state, ...values };
    if (!quiet) remember();
    controls();
    if ("theta" in values) plots();
    list();
    const place = kept ? order.indexOf(kept) : -1;
    if (place >= 0 && ("run" in values || "view" in values)) go(place);
    else if (!quiet && scrollY > byId("entries-section").offsetTop) toList(); /* another list: begin at its top */
  }

  /* Go where the address points: to an entry, or to the list if it names a filter. */
  function arrive() {
    if (state.entry) {
      let place = order.findIndex((entry) => entry.id === state.entry);
      if (place < 0 && index.entries.some((entry) => entry.id === state.entry)) {
        change({ ...evqaFilters.DEFAULTS, entry: state.entry, run: state.run }); /* hidden by the filters */
        place = order.findIndex((entry) => entry.id === state.entry);
      }
      go(place);
    } else if (evqaFilters.format(state) !== "#") {
      toList();
    }
  }

  /* The address was changed by hand or by a link. */
  function read() {
    const before = state;
    state = evqaFilters.parse(location.hash);
    if (Object.keys(state).some((name) => name !== "entry" && state[name] !== before[name])) change({}, true);
    if (state.theta !== before.theta) plots();
    arrive();
  }

  /* ------------------------------------------------------------------------------- controls */
  function field(label, control) {
    return node("label", { class: "field" }, element("span", "", label), control);
  }

  function choice(name, label, pairs) {
    const select = node("select", { id: "field-" + name });
    for (const [value, text] of pairs) select.append(node("option", { value }, text));
    select.addEventListener("change", () => change({ [name]: select.value }));
    return field(label, select);
  }

  function distinct(key) {
    const values = [...new Set(index.entries.map((entry) => entry[key]).filter(Boolean))].sort();
    return values.length ? [["", "all"], ...values.map((value) => [value, value])] : [];
  }

  function makeControls() {
    const search = node("input", { type: "search", id: "field-q", placeholder: "question, answer, id", autocomplete: "off" });
    search.addEventListener("input", () => change({ q: search.value }));
    const fields = byId("fields"), types = distinct("type"), sources = distinct("source");
    fields.append(field("Search", search));
    if (types.length) fields.append(choice("type", "Question type", types));
    if (sources.length) fields.append(choice("source", "Source", sources));
    if (index.task === "gen") fields.append(choice("theta", "Evidence is right from", evqaFilters.THETAS.map((t) => [t, t])));
    fields.append(choice("sort", "Order", evqaFilters.offered(evqaFilters.SORTS, index).map((sort) => [sort.key, sort.label])));
    if (index.runs.length > 1) {
      const group = node("div", { class: "seg", role: "group", "aria-label": "Predictions of" });
      index.runs.forEach((run, i) => {
        const one = button("", "", () => change({ run: run.name }));
        one.append(node("i", { class: "dot", style: `--lane: var(--run-${i})` }), run.name);
        one.dataset.run = run.name;
        group.append(one);
      });
      byId("controls").append(group);
      if (index.task === "gen") {
        const side = button("Side by side", "toggle", () => change({ view: state.view === "side" ? "one" : "side" }));
        side.id = "side";
        byId("controls").append(side);
      }
    }
    const keys = button("Keys", "toggle", () => byId("help").showModal());
    keys.id = "keys";
    keys.setAttribute("aria-keyshortcuts", "?");
    byId("controls").append(keys);
    byId("clear").addEventListener("click", () => change({ ...evqaFilters.DEFAULTS, run: state.run, view: state.view }));
    for (const show of evqaFilters.offered(evqaFilters.SHOWS, index)) {
      const one = button(show.label, "", () => change({ show: show.key }));
      one.dataset.show = show.key;
      one.append(element("b", ""));
      byId("shows").append(one);
    }
  }

  function controls() {
    const counts = evqaFilters.counts(index, state), run = settings().run;
    for (const one of document.querySelectorAll("#shows button")) {
      one.setAttribute("aria-pressed", String(one.dataset.show === state.show));
      one.lastElementChild.textContent = counts[one.dataset.show];
    }
    document.querySelectorAll("#controls .seg button").forEach((one, i) => one.setAttribute("aria-pressed", String(i === run)));
    byId("side")?.setAttribute("aria-pressed", String(state.view === "side"));
    for (const name of ["q", "type", "source", "theta", "sort"]) {
      const control = byId("field-" + name);
      if (control && control.value !== state[name]) control.value = state[name];
    }
  }

  function plots() {
    evqaPlots.draw(byId("plots"), index, state.theta, (values) => evqaFilters.format({ ...evqaFilters.DEFAULTS, theta: state.theta, ...values }));
  }

  /* ------------------------------------------------------------------------------- keys */
  function stageHere() {
    return current < 0 ? undefined : stages.get(order[current].number);
  }

  function nextRun(by) {
    const count = index.runs.length;
    change({ run: index.runs[(settings().run + by + count) % count].name });
  }

  const KEYS = {
    j: () => go(Math.min(current + 1, order.length - 1)),
    k: () => go(Math.max(current - 1, 0)),
    p: () => stageHere()?.toggle(),
    ",": () => stageHere()?.step(-1),
    ".": () => stageHere()?.step(1),
    "[": () => nextRun(-1),
    "]": () => nextRun(1),
    s: () => byId("side")?.click(),
    "/": () => byId("field-q").focus(),
    "?": () => byId("help").showModal(),
  };

  function listenToKeys() {
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input:not([type=checkbox]), select, textarea, dialog");
      if (event.key === "Escape" && event.target.id === "field-q") event.target.blur();
      if (typing || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
      event.preventDefault();
      KEYS[event.key]();
    });
    byId("entries").addEventListener("focusin", (event) => {
      const item = event.target.closest("#entries > li");
      current = order.findIndex((entry) => entry.number === Number(item.dataset.number));
    });
  }

  /* Links inside the page; not through the address, which holds the filters. */
  function listenToJumps() {
    for (const link of document.querySelectorAll("a.jump")) {
      link.addEventListener("click", (event) => {
        const target = byId(link.getAttribute("href").slice(1));
        event.preventDefault();
        if (target.id === "entries-heading") toList();
        else target.scrollIntoView();
        target.focus({ preventScroll: true });
      });
    }
  }

  /* What is scrolled to must not end up behind the bar, which grows when its controls wrap. */
  function keepClearOfTheBar() {
    const bar = document.querySelector(".bar");
    new ResizeObserver(() => {
      const sticky = getComputedStyle(bar).position === "sticky";
      document.documentElement.style.scrollPaddingTop = (sticky ? bar.offsetHeight + 10 : 10) + "px";
    }).observe(bar);
  }

  return {
    index(data) {
      index = data;
      index.entries.forEach((entry, number) => (entry.number = number));
      document.title = byId("title").textContent = index.title;
      byId("subtitle").textContent = index.subtitle;
      byId("footer").textContent = index.footer;
      evqaDom.declareRunColours(index.runs.length);
      evqaScores.draw(byId("scores"), index);
      makeControls();
      makeItems();
      listenToKeys();
      listenToJumps();
      keepClearOfTheBar();
      window.addEventListener("hashchange", read);
      state = evqaFilters.parse(location.hash);
      plots();
      change({}, true);
      arrive();
    },
    entry: arrived,
  };
})();

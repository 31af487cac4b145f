"use strict";
/* One entry's clip: video, mask overlays, time line. The clock is the video's, or ours where there is no clip.
   With runs side by side there is one panel per run: the first holds the video, the others copy its pictures, so that
   all of them always show the same frame. */
const evqaStage = (() => {
  const { element, node, button, seconds } = evqaDom;
  const CACHE = 48; /* painted masks kept */
  const COPY_WIDTH = 640; /* pixels of a panel that copies the video */
  const FALLBACK_FPS = 6; /* of masks without a clip */

  function part(value, duration) {
    return Math.max(0, Math.min(100, (100 * value) / duration)) + "%";
  }

  function lane(colour, label, segments, duration, kind) {
    const made = element("div", "lane " + (kind || ""));
    made.style.setProperty("--lane", colour);
    if (label) {
      const name = element("span", "", label);
      name.title = label;
      made.append(name);
    }
    for (const [start, end] of segments) {
      if (start === null || end === null) continue; /* a NaN that a system wrote */
      const bar = element("i");
      bar.style.left = part(start, duration);
      bar.style.right = `calc(100% - ${part(end, duration)})`;
      bar.title = seconds(start) + " to " + seconds(end);
      made.append(bar);
    }
    return made;
  }

  /* Frames with masks as spans of time, for the thin lanes. */
  function spans(masks, fps, hold) {
    const out = [];
    for (const f of [...new Set(masks.map((m) => m.f))].sort((a, b) => a - b)) {
      const last = out[out.length - 1], end = (f + hold) / fps;
      if (last && f / fps <= last[1] + 1e-6) last[1] = end;
      else out.push([f / fps, end]);
    }
    return out;
  }

  /* Masks by frame. A mask stands for so many frames: 1, or more where the page keeps only some of the masks. */
  function byFrame(masks, hold) {
    const out = new Map();
    for (const mask of masks) {
      for (let f = mask.f; f < mask.f + hold; f++) {
        if (!out.has(f)) out.set(f, []);
        out.get(f).push(mask);
      }
    }
    return out;
  }

  function lastMoment(sides, fps) {
    const ends = sides.flatMap((side) => [...side.segments.map((s) => s[1]), ...side.masks.map((m) => (m.f + 1) / fps)]);
    return Math.max(1, ...ends.filter((end) => end !== null));
  }

  class Stage {
    /* entry: {clip, poster, fps, duration, size, video_id, truth: side}; runs: [{name, colour, rgb, segments, masks, hold,
       current, grounded}], where a side is {segments, masks: [{f, c, s}], hold}. A run that is not grounded (a mere
       choice) has no layer and no lane. options: {shown: {truth, said}, sideBySide}. */
    constructor(parent, entry, runs, options) {
      this.entry = entry;
      this.runs = runs.filter((run) => run.grounded);
      this.shown = options.shown;
      this.fps = entry.fps || FALLBACK_FPS;
      this.duration = entry.duration || lastMoment([entry.truth, ...this.runs], this.fps);
      this.truth = { name: "truth", rgb: evqaDom.TRUTH.rgb, frames: byFrame(entry.truth.masks, entry.truth.hold || 1) };
      this.layers = this.runs.map((run) => ({ name: run.name, rgb: run.rgb, frames: byFrame(run.masks, run.hold || 1), current: run.current }));
      this.painted = new Map();
      this.time = 0;
      this.frame = -1;
      const panels = options.sideBySide && this.layers.length > 1 ? this.layers.map((layer) => [layer]) : [this.layers.filter((l) => l.current)];
      const box = element("div", "panels");
      box.style.setProperty("--panels", panels.length);
      this.panels = panels.map((layers, i) => this.panel(box, layers, i === 0, panels.length > 1));
      parent.append(box, this.tools(), this.timeline());
      /* Begin in the middle of the first moment that matters, where there is something to see. */
      const first = entry.truth.segments[0];
      this.place(first ? (first[0] + first[1]) / 2 : 0);
    }

    panel(box, layers, primary, named) {
      const stage = element("div", "stage"), size = this.entry.size || [9, 16];
      stage.style.aspectRatio = size[1] + " / " + size[0];
      const overlay = element("canvas", "overlay"), panel = { layers, overlay };
      overlay.width = size[1] > 16 ? size[1] : 640;
      overlay.height = size[0] > 9 ? size[0] : 360;
      overlay.setAttribute("aria-hidden", "true");
      if (!this.entry.clip) {
        if (primary) stage.append(element("div", "broken", "The data comes without this clip. Masks are drawn on black."));
      } else if (primary) {
        stage.append(this.makeVideo(stage));
      } else {
        panel.copy = element("canvas", "copy");
        panel.copy.width = COPY_WIDTH;
        panel.copy.height = Math.round((COPY_WIDTH * size[0]) / size[1]);
        panel.copy.setAttribute("aria-hidden", "true");
        stage.append(panel.copy);
      }
      stage.append(overlay);
      if (named) stage.append(node("span", { class: "name", style: `--lane: ${this.runs.find((r) => r.name === layers[0].name).colour}` }, layers[0].name));
      stage.addEventListener("click", () => this.toggle());
      box.append(stage);
      return panel;
    }

    makeVideo(stage) {
      const video = (this.video = element("video"));
      Object.assign(video, { muted: true, loop: true, playsInline: true, preload: "none" });
      if (this.entry.poster) video.poster = this.entry.poster;
      video.setAttribute("aria-label", "Clip " + this.entry.video_id);
      video.addEventListener("error", () => {
        if (!video.getAttribute("src")) return; /* put to sleep, not broken */
        stage.append(element("div", "broken", `This browser cannot play the clip (${this.entry.clip}). Masks are drawn on black.`));
        this.video = null;
      });
      video.addEventListener("loadedmetadata", () => this.place(this.time));
      for (const name of ["seeked", "loadeddata"]) video.addEventListener(name, () => this.copyPicture());
      for (const name of ["play", "pause"]) video.addEventListener(name, () => this.label());
      if (this.entry.poster) {
        this.poster = new Image();
        this.poster.addEventListener("load", () => this.copyPicture());
        this.poster.src = this.entry.poster;
      }
      return video;
    }

    /* Load the clip: called when the entry is looked at, not before. */
    wake() {
      if (!this.video || this.video.getAttribute("src")) return;
      this.video.preload = "auto";
      this.video.src = this.entry.clip;
    }

    /* Let go of the clip and its memory. */
    sleep() {
      this.pause();
      if (!this.video || !this.video.getAttribute("src")) return;
      this.video.removeAttribute("src");
      this.video.load();
    }

    tools() {
      const bar = element("div", "tools");
      this.button = button("Play", "play", () => this.toggle());
      bar.append(this.button);
      for (const [name, text] of [["truth", "Reference"], ["said", "Prediction"]]) {
        if (name === "said" && !this.runs.length) continue;
        const input = node("input", { type: "checkbox", "data-layer": name });
        const current = this.runs.find((run) => run.current);
        input.checked = this.shown[name];
        input.addEventListener("change", () => {
          this.shown[name] = input.checked;
          this.draw(true);
        });
        const swatch = element("span", "swatch " + name);
        if (name === "said" && current) swatch.style.setProperty("--lane", current.colour);
        bar.append(node("label", {}, input, swatch, text));
      }
      this.timeLabel = element("span", "time");
      bar.append(this.timeLabel);
      return bar;
    }

    timeline() {
      const { entry, duration, fps } = this;
      const line = (this.line = node("div", {
        class: "timeline", tabindex: 0, role: "slider", "aria-label": `Time in the clip ${entry.video_id}`,
        "aria-valuemin": 0, "aria-valuemax": duration.toFixed(2),
      }));
      line.append(lane("var(--truth)", "reference", entry.truth.segments, duration));
      if (this.truth.frames.size) line.append(lane("var(--truth)", "", spans(entry.truth.masks, fps, entry.truth.hold || 1), duration, "thin"));
      for (const run of this.runs) {
        const quiet = run.current ? "" : " quiet";
        line.append(lane(run.colour, this.runs.length > 1 ? run.name : "prediction", run.segments, duration, quiet));
        if (run.masks.length) line.append(lane(run.colour, "", spans(run.masks, fps, run.hold || 1), duration, "thin" + quiet));
      }
      const scale = element("div", "scale");
      for (const share of [0, 0.25, 0.5, 0.75, 1]) {
        const mark = element("span", "", seconds(share * duration));
        mark.style.left = 100 * share + "%";
        scale.append(mark);
      }
      line.append(scale);
      /* The head lives in a box over the lanes only, so that 0 % and 100 % are the clip's start and end. */
      this.head = element("div", "head");
      this.heads = node("div", { class: "heads" }, this.head);
      line.append(this.heads);
      this.listen(line);
      return line;
    }

    listen(line) {
      const pointed = (event) => {
        const bounds = this.heads.getBoundingClientRect();
        this.seek(((event.clientX - bounds.left) / bounds.width) * this.duration);
      };
      line.addEventListener("pointerdown", (event) => {
        line.setPointerCapture(event.pointerId);
        pointed(event);
      });
      line.addEventListener("pointermove", (event) => {
        if (line.hasPointerCapture(event.pointerId)) pointed(event);
      });
      line.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1 / this.fps, ArrowRight: 1 / this.fps, PageDown: -1, PageUp: 1 }[event.key];
        if (step !== undefined) this.seek(this.time + step);
        else if (event.key === "Home") this.seek(0);
        else if (event.key === "End") this.seek(this.duration);
        else if (event.key === " ") this.toggle();
        else return;
        event.preventDefault();
      });
    }

    seek(time) {
      this.wake();
      this.place(time);
    }

    place(time) {
      this.time = Math.max(0, Math.min(this.duration - 1e-3, time));
      /* A quarter of a frame in, so that rounding cannot show the frame before. */
      if (this.video) this.video.currentTime = Math.min(this.time + 0.25 / this.fps, Math.max(0, this.duration - 0.5 / this.fps));
      this.draw(true);
    }

    step(frames) {
      this.pause();
      this.seek(this.time + frames / this.fps);
    }

    playing() {
      return this.video ? !this.video.paused : this.started !== undefined;
    }

    toggle() {
      if (this.playing()) return this.pause();
      this.wake();
      if (this.video) this.video.play().catch(() => this.label());
      else this.started = performance.now() / 1000 - this.time;
      this.label();
      this.tick();
    }

    pause() {
      if (this.video) this.video.pause();
      this.started = undefined;
      this.label();
    }

    label() {
      this.button.textContent = this.playing() ? "Pause" : "Play";
    }

    tick() {
      if (!this.playing() || !this.line.isConnected) return;
      if (this.video) this.time = this.video.currentTime;
      else this.time = (performance.now() / 1000 - this.started) % this.duration;
      this.copyPicture();
      this.draw();
      requestAnimationFrame(() => this.tick());
    }

    /* The video's picture, or the still one until there is a video, in the panels that have no video of their own. */
    copyPicture() {
      const ready = this.video && this.video.readyState >= 2, picture = ready ? this.video : this.poster;
      if (!picture || (!ready && !picture.naturalWidth)) return;
      const width = ready ? picture.videoWidth : picture.naturalWidth, height = ready ? picture.videoHeight : picture.naturalHeight;
      for (const { copy } of this.panels) {
        if (!copy) continue;
        const scale = Math.min(copy.width / width, copy.height / height); /* as object-fit: contain does it for the video */
        copy.getContext("2d").drawImage(picture, (copy.width - scale * width) / 2, (copy.height - scale * height) / 2, scale * width, scale * height);
      }
    }

    draw(force) {
      const frame = Math.floor(this.time * this.fps + 1e-3);
      this.head.style.left = part(this.time, this.duration);
      this.timeLabel.textContent = seconds(this.time) + " of " + seconds(this.duration);
      this.line.setAttribute("aria-valuenow", this.time.toFixed(2));
      this.line.setAttribute("aria-valuetext", seconds(this.time));
      if (frame === this.frame && !force) return;
      this.frame = frame;
      for (const { overlay, layers } of this.panels) {
        const context = overlay.getContext("2d");
        context.clearRect(0, 0, overlay.width, overlay.height);
        for (const layer of [...(this.shown.truth ? [this.truth] : []), ...(this.shown.said ? layers : [])]) {
          for (const mask of layer.frames.get(frame) || []) context.drawImage(this.paint(layer, mask), 0, 0, overlay.width, overlay.height);
        }
      }
    }

    paint(layer, mask) {
      if (!this.painted.has(mask)) {
        if (this.painted.size >= CACHE) this.painted.delete(this.painted.keys().next().value);
        this.painted.set(mask, evqaMasks.paint(mask.c, mask.s[0], mask.s[1], layer.rgb, layer !== this.truth));
      }
      return this.painted.get(mask);
    }
  }

  return { Stage, lane };
})();

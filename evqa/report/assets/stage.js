"use strict";
/* One entry's clip: video, mask overlays, time line. The clock is the video's, or ours where there is no clip. */
var evqaStage = (function () {
  var RGB = { truth: [37, 99, 235], said: [234, 88, 12] };
  var CACHE = 48;

  function element(tag, className, text) {
    var node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function clock(seconds) {
    return seconds.toFixed(1) + " s";
  }

  function percent(value, duration) {
    return Math.max(0, Math.min(100, (100 * value) / duration)) + "%";
  }

  function lane(kind, label, segments, duration, thin) {
    var node = element("div", "lane " + kind + (thin ? " thin" : ""));
    if (label) node.appendChild(element("span", "", label));
    segments.forEach(function (segment) {
      var bar = element("i");
      bar.style.left = percent(segment[0], duration);
      bar.style.right = "calc(100% - " + percent(segment[1], duration) + ")";
      bar.title = clock(segment[0]) + " to " + clock(segment[1]);
      node.appendChild(bar);
    });
    return node;
  }

  /* Frames with masks as spans of time, for the thin lanes. */
  function spans(masks, fps) {
    var frames = masks.map(function (m) { return m.f; }).filter(function (f) { return f >= 0; });
    frames.sort(function (a, b) { return a - b; });
    var out = [];
    frames.forEach(function (f) {
      var last = out[out.length - 1];
      if (last && f / fps <= last[1] + 1e-6) last[1] = (f + 1) / fps;
      else out.push([f / fps, (f + 1) / fps]);
    });
    return out;
  }

  /* entry: {clip, fps, duration, size, truth: {segments, masks}}; said: {segments, masks, grounded}; masks are {f, c, s}.
     A prediction that is not grounded (a mere choice) has no layer and no lane of its own. */
  function Stage(parent, entry, said, shown) {
    var self = this;
    this.entry = entry;
    this.fps = entry.fps || 6;
    this.duration = entry.duration || Math.max(1, lastMoment(entry, said, this.fps));
    this.layers = { truth: byFrame(entry.truth.masks), said: byFrame(said.masks) };
    this.shown = shown;
    this.grounded = said.grounded;
    this.painted = new Map();
    this.time = 0;
    this.frame = -1;

    var box = element("div", "stage");
    var size = entry.size || [9, 16];
    box.style.aspectRatio = size[1] + " / " + size[0];
    this.canvas = element("canvas");
    this.canvas.width = size[1] > 16 ? size[1] : 640;
    this.canvas.height = size[0] > 9 ? size[0] : 360;
    this.canvas.setAttribute("aria-hidden", "true");
    if (entry.clip) {
      this.video = element("video");
      this.video.muted = true;
      this.video.loop = true;
      this.video.playsInline = true;
      this.video.preload = "auto";
      this.video.src = entry.clip;
      this.video.setAttribute("aria-label", "Clip " + entry.video_id);
      this.video.addEventListener("click", function () { self.toggle(); });
      this.video.addEventListener("error", function () {
        box.appendChild(element("div", "broken", "This browser cannot play the clip (" + entry.clip + "). Masks are drawn on black."));
        self.video = null;
      });
      this.video.addEventListener("seeked", function () { self.draw(); });
      this.video.addEventListener("loadeddata", function () { self.draw(); });
      ["play", "pause"].forEach(function (name) {
        self.video.addEventListener(name, function () { self.label(); });
      });
      box.appendChild(this.video);
    } else {
      box.appendChild(element("div", "broken", "The data comes without this clip. Masks are drawn on black."));
    }
    box.appendChild(this.canvas);
    parent.appendChild(box);
    parent.appendChild(this.tools());
    parent.appendChild(this.timeline(said));
    /* Begin in the middle of the first moment that matters, where there is something to see. */
    var first = entry.truth.segments[0];
    this.seek(first ? (first[0] + first[1]) / 2 : 0);
  }

  function lastMoment(entry, said, fps) {
    var ends = [];
    [entry.truth, said].forEach(function (side) {
      side.segments.forEach(function (s) { ends.push(s[1]); });
      side.masks.forEach(function (m) { ends.push((m.f + 1) / fps); });
    });
    return ends.reduce(function (a, b) { return Math.max(a, b); }, 0);
  }

  function byFrame(masks) {
    var out = new Map();
    masks.forEach(function (m) {
      if (!out.has(m.f)) out.set(m.f, []);
      out.get(m.f).push(m);
    });
    return out;
  }

  Stage.prototype.tools = function () {
    var self = this, bar = element("div", "tools");
    this.button = element("button", "play", "Play");
    this.button.type = "button";
    this.button.addEventListener("click", function () { self.toggle(); });
    bar.appendChild(this.button);
    [["truth", "t", "Reference"], ["said", "s", "Prediction"]].forEach(function (item) {
      if (item[0] === "said" && !self.grounded) return;
      var label = element("label"), input = element("input");
      input.type = "checkbox";
      input.checked = self.shown[item[0]];
      input.dataset.layer = item[0];
      input.addEventListener("change", function () {
        self.shown[item[0]] = input.checked;
        self.draw(true);
      });
      label.appendChild(input);
      label.appendChild(element("span", "swatch " + item[1]));
      label.appendChild(document.createTextNode(item[2]));
      bar.appendChild(label);
    });
    this.timeLabel = element("span", "time");
    bar.appendChild(this.timeLabel);
    return bar;
  };

  Stage.prototype.timeline = function (said) {
    var self = this, line = element("div", "timeline"), entry = this.entry;
    line.tabIndex = 0;
    line.setAttribute("role", "slider");
    line.setAttribute("aria-label", "Time in the clip; blue is the reference, orange the prediction");
    line.setAttribute("aria-valuemin", "0");
    line.setAttribute("aria-valuemax", this.duration.toFixed(2));
    line.appendChild(lane("t", "reference", entry.truth.segments, this.duration));
    if (this.grounded) line.appendChild(lane("s", "prediction", said.segments, this.duration));
    if (this.layers.truth.size) line.appendChild(lane("t", "masks", spans(entry.truth.masks, this.fps), this.duration, true));
    if (this.layers.said.size) {
      line.appendChild(lane("s", this.layers.truth.size ? "" : "masks", spans(said.masks, this.fps), this.duration, true));
    }
    var scale = element("div", "scale");
    [0, 0.25, 0.5, 0.75, 1].forEach(function (part) {
      var mark = element("span", "", clock(part * self.duration));
      mark.style.left = 100 * part + "%";
      scale.appendChild(mark);
    });
    line.appendChild(scale);
    /* The head lives in a box over the lanes only, so that 0 % and 100 % are the clip's start and end. */
    this.heads = element("div");
    this.heads.style.cssText = "position:absolute;left:74px;right:0;top:0;bottom:15px;pointer-events:none";
    this.head = element("div", "head");
    this.heads.appendChild(this.head);
    line.appendChild(this.heads);
    this.line = line;
    var pointed = function (event) {
      var bounds = self.heads.getBoundingClientRect();
      self.seek(((event.clientX - bounds.left) / bounds.width) * self.duration);
    };
    line.addEventListener("pointerdown", function (event) {
      line.setPointerCapture(event.pointerId);
      pointed(event);
    });
    line.addEventListener("pointermove", function (event) {
      if (line.hasPointerCapture(event.pointerId)) pointed(event);
    });
    line.addEventListener("keydown", function (event) {
      var step = { ArrowLeft: -1 / self.fps, ArrowRight: 1 / self.fps, PageDown: -1, PageUp: 1 }[event.key];
      if (step !== undefined) self.seek(self.time + step);
      else if (event.key === "Home") self.seek(0);
      else if (event.key === "End") self.seek(self.duration);
      else if (event.key === " ") self.toggle();
      else return;
      event.preventDefault();
    });
    return line;
  };

  Stage.prototype.seek = function (time) {
    time = Math.max(0, Math.min(this.duration - 1e-3, time));
    this.time = time;
    /* Half a frame in, so that rounding cannot show the frame before. */
    if (this.video) this.video.currentTime = Math.min(time + 0.25 / this.fps, Math.max(0, this.duration - 0.5 / this.fps));
    this.draw(true);
  };

  Stage.prototype.playing = function () {
    return this.video ? !this.video.paused : this.started !== undefined;
  };

  Stage.prototype.toggle = function () {
    var self = this;
    if (this.playing()) return this.pause();
    if (this.video) {
      var promise = this.video.play();
      if (promise) promise.catch(function () { self.label(); });
    } else {
      this.started = performance.now() / 1000 - this.time;
    }
    this.label();
    this.tick();
  };

  Stage.prototype.pause = function () {
    if (this.video) this.video.pause();
    this.started = undefined;
    this.label();
  };

  Stage.prototype.label = function () {
    this.button.textContent = this.playing() ? "Pause" : "Play";
  };

  Stage.prototype.tick = function () {
    var self = this;
    if (!this.playing() || !this.canvas.isConnected) return;
    if (this.video) this.time = this.video.currentTime;
    else this.time = (performance.now() / 1000 - this.started) % this.duration;
    this.draw();
    requestAnimationFrame(function () { self.tick(); });
  };

  Stage.prototype.draw = function (force) {
    var frame = Math.floor(this.time * this.fps + 1e-3), self = this;
    this.head.style.left = percent(this.time, this.duration);
    this.timeLabel.textContent = clock(this.time) + " of " + clock(this.duration);
    this.line.setAttribute("aria-valuenow", this.time.toFixed(2));
    this.line.setAttribute("aria-valuetext", clock(this.time));
    if (frame === this.frame && !force) return;
    this.frame = frame;
    var context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ["truth", "said"].forEach(function (name) {
      if (!self.shown[name]) return;
      (self.layers[name].get(frame) || []).forEach(function (mask, number) {
        context.drawImage(self.paint(name, frame, number, mask), 0, 0, self.canvas.width, self.canvas.height);
      });
    });
  };

  Stage.prototype.paint = function (name, frame, number, mask) {
    var key = name + frame + "/" + number;
    if (!this.painted.has(key)) {
      if (this.painted.size >= CACHE) this.painted.delete(this.painted.keys().next().value);
      this.painted.set(key, evqaMasks.paint(mask.c, mask.s[0], mask.s[1], RGB[name], name === "said"));
    }
    return this.painted.get(key);
  };

  return { Stage: Stage, element: element, clock: clock, lane: lane };
})();

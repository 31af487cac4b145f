"use strict";
/* COCO run-length masks, drawn without a server: the counts string is unpacked here, in the browser. */
var evqaMasks = (function () {
  /* Run lengths of a packed counts string; see evqa/masks.py for the code. */
  function runs(counts) {
    var out = [], i = 0;
    while (i < counts.length) {
      var value = 0, shift = 0, code;
      do {
        code = counts.charCodeAt(i++) - 48;
        value += (code & 31) * Math.pow(2, shift);
        shift += 5;
      } while (code & 32);
      if (code & 16) value -= Math.pow(2, shift);
      if (out.length > 2) value += out[out.length - 2];
      out.push(value);
    }
    return out;
  }

  /* One byte a pixel, row by row; the runs go down the columns. */
  function decode(counts, height, width) {
    var mask = new Uint8Array(height * width), position = 0, value = 0;
    runs(counts).forEach(function (run) {
      if (value) {
        for (var k = position; k < position + run; k++) mask[(k % height) * width + ((k / height) | 0)] = 1;
      }
      position += run;
      value = 1 - value;
    });
    return mask;
  }

  /* A canvas with the mask in a colour: solid, or striped so that it can be told from a solid one without its hue. */
  function paint(counts, height, width, rgb, striped) {
    var mask = decode(counts, height, width);
    var canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    var context = canvas.getContext("2d"), image = context.createImageData(width, height), data = image.data;
    var edge = Math.max(1, Math.round(Math.max(width, height) / 400));
    for (var y = 0; y < height; y++) {
      for (var x = 0; x < width; x++) {
        var p = y * width + x;
        if (!mask[p]) continue;
        var border = x < edge || y < edge || x >= width - edge || y >= height - edge ||
          !mask[p - edge] || !mask[p + edge] || !mask[p - edge * width] || !mask[p + edge * width];
        var stripe = striped && (x + y) % (8 * edge) >= 3 * edge;
        data[4 * p] = rgb[0];
        data[4 * p + 1] = rgb[1];
        data[4 * p + 2] = rgb[2];
        data[4 * p + 3] = border ? 255 : stripe ? 40 : 120;
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  return { runs: runs, decode: decode, paint: paint };
})();

"use strict";
/* Small things that every other file uses: making elements, numbers as text, the colours of runs. */
const evqaDom = (() => {
  /* Blue is the reference everywhere. A run has one colour on the whole page; each is told from the reference, and where
     masks overlap from the other runs, by its pattern and its label too. */
  const RUN_COLOURS = [
    { ink: "#b23a0a", dark: "#ff9a5c", rgb: [234, 88, 12] },
    { ink: "#0b625b", dark: "#4fd1c5", rgb: [13, 148, 136] },
    { ink: "#a21caf", dark: "#e27bf0", rgb: [192, 38, 211] },
    { ink: "#3f660c", dark: "#a8d65b", rgb: [101, 163, 13] },
    { ink: "#7f5107", dark: "#e8b84a", rgb: [180, 118, 10] },
    { ink: "#5b5f6b", dark: "#aab1c0", rgb: [110, 116, 130] },
  ];

  const TRUTH = { ink: "#1d4ed8", dark: "#7aa5ff", rgb: [37, 99, 235] };

  function element(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  }

  /* An element with attributes and children: node("a", {href: "#"}, "text", other). */
  function node(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function button(text, className, act) {
    const made = element("button", className, text);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  }

  function seconds(value) {
    return value.toFixed(1) + " s";
  }

  /* A fraction in percent; a dash where there is none. */
  function percent(value) {
    return value === null || value === undefined ? "–" : (100 * value).toFixed(1);
  }

  function number(value) {
    return value === null || value === undefined ? "–" : value.toFixed(1);
  }

  function runColour(i) {
    return RUN_COLOURS[i % RUN_COLOURS.length];
  }

  /* Style sheet variables --run-0, --run-1, ... for both colour schemes. */
  function declareRunColours(count) {
    const light = [], dark = [];
    for (let i = 0; i < count; i++) {
      light.push(`--run-${i}: ${runColour(i).ink};`);
      dark.push(`--run-${i}: ${runColour(i).dark};`);
    }
    document.head.append(
      element("style", "", `:root { ${light.join(" ")} } @media (prefers-color-scheme: dark) { :root { ${dark.join(" ")} } }`),
    );
  }

  return { element, node, button, seconds, percent, number, runColour, declareRunColours, TRUTH };
})();

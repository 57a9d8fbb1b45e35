"use strict";
/* The namespace of the page: small DOM builders, numbers as text, and the one state, mirrored in the URL.
   Not here: where data comes from (source.js, traces.js), what is drawn (the views), who calls whom
   (app.js). */
const Elman = { views: [] };

(function () {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "text") element.textContent = value;
      else if (name in element && typeof value === "boolean") element[name] = value;
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(
      ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== "")
    );
    return element;
  }
  Elman.el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  Elman.svg = (tag, attributes, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);
  Elman.byId = (id) => document.getElementById(id);

  /* Numbers as text: a true minus sign, and digits that suit the size. */
  Elman.number = function (value, digits) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const text = value.toFixed(digits === undefined ? 2 : digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  };
  Elman.small = function (value) {
    // for norms and probabilities, over many powers of ten
    if (!Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 0.001 && size < 10000) return String(Number(value.toPrecision(3))).replace("-", "−");
    const [mantissa, power] = value.toExponential(1).split("e");
    return `${mantissa.replace("-", "−")}·10${superscript(Number(power))}`;
  };
  function superscript(power) {
    const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
    return (power < 0 ? "⁻" : "") + String(Math.abs(power)).replace(/\d/g, (digit) => digits[digit]);
  }
  Elman.superscript = superscript;
  Elman.percent = function (probability) {
    const value = 100 * probability;
    if (value >= 10) return `${value.toFixed(0)} %`;
    if (value >= 0.1) return `${value.toFixed(1)} %`;
    return value >= 0.001 ? `${value.toFixed(3)} %` : `${Elman.small(value)} %`;
  };
  Elman.clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  Elman.grouped = (number) => number.toLocaleString("en"); // 10,000
  Elman.count = (number, noun) => `${Elman.grouped(number)} ${noun}${number === 1 ? "" : "s"}`;

  /* How a token is shown: what stood in the text; `</s>` as a return sign, white space made visible. */
  Elman.shown = function (token) {
    if (token.token === "</s>") return "⏎";
    return Elman.visible(token.text || token.token);
  };
  Elman.visible = (text) =>
    text === "</s>" ? "⏎" : text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");

  /* The state. Every field has a default; what differs from it stands in the URL's fragment. */
  const DEFAULTS = {
    preset: "",
    text: "",
    models: [],
    state: "carry",
    view: "surprisal",
    model: "",
    versus: "",
    colour: "surprisal",
    token: 0,
    unit: -1,
    layer: 0,
    part: "",
    sort: "index",
    from: -1,
    to: -1,
    threshold: 0.5,
    norm: "memory",
    scale: "relative",
    step: 0,
    beside: "vary",
    hide: 0,
  };
  /* Fields that are one of a few words; whatever else a link says is passed over. */
  const WORDS = {
    state: ["carry", "reset"],
    colour: ["surprisal", "difference", "unit", "gradient"],
    sort: ["index", "mean", "variance", "similarity"],
    norm: ["memory", "h", "x"],
    scale: ["relative", "absolute"],
    beside: ["vary", "hold", "like", "none"],
  };
  Elman.defaults = () => ({ ...DEFAULTS });
  Elman.setDefault = (name, value) => {
    DEFAULTS[name] = value;
  };
  Elman.state = Elman.defaults();

  Elman.fragment = function () {
    const pairs = [];
    for (const [name, standard] of Object.entries(DEFAULTS)) {
      const value = Elman.state[name];
      if (name === "text" && Elman.state.preset) continue;
      if (String(value) !== String(standard)) pairs.push(`${name}=${encodeURIComponent(String(value))}`);
    }
    return pairs.join("&");
  };
  Elman.parse = function (fragment) {
    const found = {};
    for (const pair of fragment.replace(/^#/, "").split("&")) {
      const [name, coded] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
      if (!(name in DEFAULTS)) continue;
      let value;
      try {
        value = decodeURIComponent(coded);
      } catch {
        continue;
      } // a damaged link: the default instead
      if (Array.isArray(DEFAULTS[name])) found[name] = value ? value.split(",").slice(0, 16) : [];
      else if (typeof DEFAULTS[name] === "number") {
        const number = name === "threshold" ? Number(value) : Math.trunc(Number(value));
        if (Number.isFinite(number)) found[name] = number;
      } else if (!WORDS[name] || WORDS[name].includes(value)) found[name] = value;
    }
    return found;
  };

  const listeners = [];
  let scheduled = null,
    changed = new Set();
  Elman.onChange = (listener) => listeners.push(listener);

  /* Change the state; listeners hear once a frame which fields changed. */
  Elman.set = function (patch) {
    for (const [name, value] of Object.entries(patch)) {
      if (String(Elman.state[name]) === String(value)) continue;
      Elman.state[name] = value;
      changed.add(name);
    }
    if (changed.size) schedule();
  };
  Elman.refresh = function (name) {
    changed.add(name);
    schedule();
  };
  function schedule() {
    if (scheduled === null) scheduled = requestAnimationFrame(flush);
  }
  let linkTimer = 0;
  function flush() {
    scheduled = null;
    const names = changed;
    changed = new Set();
    clearTimeout(linkTimer); // browsers limit how often the URL may change
    linkTimer = setTimeout(Elman.writeLink, 120);
    for (const listener of listeners) listener(names);
  }
  let written = location.hash;
  Elman.writeLink = function () {
    // somebody has just gone to another link: it is adopted, not overwritten
    if (location.hash !== written) return;
    const fragment = Elman.fragment();
    if (location.hash.slice(1) !== fragment) history.replaceState(null, "", `#${fragment}`);
    written = location.hash;
  };
  /* The fragment that was navigated to, or null where it is the page's own. */
  Elman.arrived = function () {
    const own = location.hash === written;
    written = location.hash;
    return own ? null : Elman.parse(location.hash);
  };

  Elman.range = function () {
    // [from, to] of the chosen words, both included, or null
    const { from, to } = Elman.state;
    return from >= 0 && to >= from ? [from, to] : null;
  };
  Elman.say = function (text) {
    Elman.byId("readout").textContent = text;
  };
  Elman.calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
})();

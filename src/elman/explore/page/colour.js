"use strict";
/* Colour: three ordered scales, whose anchors stand in page.css for light and dark, as classes for words and
   as tables of 256 colours for canvases; legends. Lightness alone orders each scale, so it survives colour
   blindness and grey print; page.css keeps the text on every step at a contrast of 4.5 or more. Not here:
   what is coloured. */
(function () {
  const STEPS = { s: 9, d: 9, g: 9 }; // surprisal and norms; signed; gates from 0 to 1
  const tables = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const printing = matchMedia("print");

  Elman.css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function rgb(colour) {
    return [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  }
  /* 256 packed little-endian pixels from the anchors of a scale. */
  Elman.table = function (scale) {
    if (tables.has(scale)) return tables.get(scale);
    const anchors = Array.from({ length: STEPS[scale] }, (_, step) => rgb(Elman.css(`--${scale}${step}`)));
    const table = new Uint32Array(256);
    for (let level = 0; level < 256; level++) {
      const place = (level / 255) * (anchors.length - 1);
      const low = Math.min(Math.floor(place), anchors.length - 2);
      const mixed = anchors[low].map((part, k) =>
        Math.round(part + (place - low) * (anchors[low + 1][k] - part))
      );
      table[level] = (255 << 24) | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0];
    }
    tables.set(scale, table);
    return table;
  };
  function themeChanged() {
    tables.clear();
    Elman.refresh("theme");
  }
  dark.addEventListener("change", themeChanged);
  printing.addEventListener("change", themeChanged);

  /* Bits → a step of the surprisal scale; steps are finer where words are common. */
  const BITS = [1, 2, 4, 6, 8, 10, 12, 15];
  function below(edges, value) {
    let step = 0;
    while (step < edges.length && value >= edges[step]) step++;
    return step;
  }
  Elman.bitsClass = (bits) => `s${below(BITS, bits)}`;

  /* A difference in bits → a step of the signed scale; the middle one is "about equal". */
  const GAPS = [-4, -2, -1, -0.25, 0.25, 1, 2, 4];
  Elman.gapClass = (gap) => (gap === null ? "none" : `d${below(GAPS, gap)}`);

  /* A state in [−1, 1] (cells of an LSTM may pass it), a gate in [0, 1]. */
  Elman.signedClass = (value, most) => `d${Elman.clamp(Math.round(4 + (4 * value) / most), 0, 8)}`;
  Elman.gateClass = (value) => `g${Elman.clamp(Math.round(8 * value), 0, 8)}`;
  /* A norm beside the largest: each step of the scale is a factor of 2. */
  Elman.normClass = (ratio) =>
    ratio > 0 ? `s${Elman.clamp(8 + Math.ceil(Math.log2(ratio) - 0.5), 0, 8)}` : "s0";

  Elman.legends = {
    surprisal: () => steps("surprisal in bits", "s", ["0", "1", "2", "4", "6", "8", "10", "12", "15+"]),
    gap: (first, second) =>
      steps(
        "",
        "d",
        ["−4", "−2", "−1", "", "≈", "", "+1", "+2", "+4"],
        `bits: ${first} is better`,
        `${second} is better`
      ),
    signed: (label, most) =>
      steps(label, "d", [
        Elman.number(-most, most < 10 ? 1 : 0),
        "",
        "",
        "",
        "0",
        "",
        "",
        "",
        Elman.number(most, most < 10 ? 1 : 0),
      ]),
    gate: (label) => steps(label, "g", ["0", "", "", "", "½", "", "", "", "1"]),
    norm: () =>
      steps("gradient after reading it, beside the largest", "s", ["1/256", "", "1/64", "", "1/16", "", "1/4", "", "1"]),
  };
  function steps(label, scale, ticks, before, after) {
    const boxes = ticks.map((tick, step) => Elman.el("span", { class: `key ${scale}${step}`, text: tick }));
    return Elman.el(
      "span",
      { class: "scale" },
      label || before ? Elman.el("span", { class: "scale-label", text: label || before }) : null,
      Elman.el("span", { class: "keys" }, boxes),
      after ? Elman.el("span", { class: "scale-label", text: after }) : null
    );
  }
  Elman.signedTable = (value, most) => Elman.clamp(Math.round(127.5 + (127.5 * value) / most), 0, 255);

  /* One colour for each model everywhere, by its kind; another model of a kind takes a colour that no kind here
     has, and shares it only when all are taken. */
  const CELLS = { lstm: "c-lstm", gru: "c-gru", rnn: "c-rnn", "rnn-relu": "c-rnn" };
  const KINDS = { ngram: "c-ngram", feedforward: "c-ff", mixture: "c-mix" };
  const ALL = ["c-lstm", "c-ff", "c-gru", "c-rnn", "c-mix", "c-ngram", "c-other"];
  const own = (card) => (card.cell ? CELLS[card.cell] : KINDS[card.kind] || "c-other");
  let tints = new Map();
  Elman.tint = function (card) {
    if (!tints.has(card.id)) {
      const cards = [...Elman.data.cards.values()],
        free = ALL.filter((tint) => !cards.some((one) => own(one) === tint)),
        seen = new Set();
      tints = new Map();
      for (const one of cards) {
        const tint = seen.has(own(one)) ? free.shift() || own(one) : own(one);
        seen.add(own(one));
        tints.set(one.id, tint);
      }
    }
    return tints.get(card.id);
  };
})();

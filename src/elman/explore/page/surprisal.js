"use strict";
/* View 1: how surprised each model was, word by word, on one scale; sums; where two models differ most. */
(function () {
  const { el } = Elman;
  const HEIGHT = 84;
  let body;

  function build(panel) {
    body = {
      sky: el("div", { class: "skylines" }),
      words: el("div"),
      sums: el("div"),
      gaps: el("div"),
      numbers: el("div"),
    };
    panel.append(body.sky, body.words, el("div", { class: "two" }, body.sums, body.gaps), body.numbers);
  }

  /* Bars on a canvas: one for each word, coloured as the words are; places follow the model in focus. */
  function skyline(id, width, most) {
    const trace = Elman.data.traces[id],
      focus = Elman.focus();
    const canvas = el("canvas", {
      role: "img",
      "aria-label": `Surprisal of each word under ${Elman.name(id)}; the numbers are in the table below.`,
    });
    const scale = window.devicePixelRatio || 1,
      context = canvas.getContext("2d");
    const match = id === Elman.state.model ? null : Elman.align(Elman.state.model, id);
    // a token that begins in an earlier word of the focus has been drawn there
    const bitsAt = (place, token) => (trace.tokens[place].start < token.start ? 0 : trace.tokens[place].bits);
    const bits = focus.tokens.map((token, row) =>
      match
        ? match[row].rows.length
          ? match[row].rows.reduce((sum, place) => sum + bitsAt(place, token), 0)
          : 0
        : token.bits
    );
    const wide = width / bits.length;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(HEIGHT * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${HEIGHT}px`;
    const colours = Array.from({ length: 9 }, (_, step) => Elman.css(`--s${step}`)),
      edge = Elman.css("--bar-edge");
    context.scale(scale, scale);
    const chosen = Elman.state.token - focus.first,
      range = Elman.range();
    if (range) {
      context.fillStyle = Elman.css("--mark");
      context.fillRect((range[0] - focus.first) * wide, 0, (range[1] - range[0] + 1) * wide, HEIGHT);
    }
    bits.forEach(function (value, row) {
      const tall = Math.max(1, (HEIGHT - 8) * Math.min(value / most, 1)),
        gap = wide > 5 ? 1 : 0;
      context.fillStyle = colours[Number(Elman.bitsClass(value).slice(1))];
      context.fillRect(row * wide, HEIGHT - tall, wide - gap, tall);
      if (wide > 3) {
        context.strokeStyle = edge;
        context.lineWidth = 0.75;
        context.strokeRect(row * wide + 0.4, HEIGHT - tall + 0.4, wide - gap - 0.8, tall);
      }
      if (row === chosen) {
        context.strokeStyle = Elman.css("--ink");
        context.lineWidth = 2;
        context.strokeRect(row * wide, 1, Math.max(wide - gap, 2), HEIGHT - 2);
      }
    });
    const at = (event) => Elman.clamp(Math.floor(event.offsetX / wide), 0, bits.length - 1);
    canvas.addEventListener("pointermove", function (event) {
      const told = Elman.describe(focus.first + at(event));
      Elman.tip(event.clientX, event.clientY, [told.title, ...told.lines, told.unknown].filter(Boolean));
    });
    canvas.addEventListener("pointerleave", () => Elman.tip());
    canvas.addEventListener("click", (event) =>
      Elman.set({ token: focus.first + at(event), from: -1, to: -1 })
    );
    return el(
      "div",
      { class: "skyline" },
      el("h3", {}, Elman.label(id), el("small", { text: ` ${Elman.number(mean(trace), 2)} bits a token` })),
      canvas
    );
  }
  const mean = (trace) => trace.tokens.reduce((sum, token) => sum + token.bits, 0) / trace.tokens.length;

  function update() {
    const ids = Elman.shownModels(),
      focus = Elman.focus();
    if (!focus) return;
    const width = Elman.room(body.sky),
      most = Math.max(
        12,
        ...ids.map((id) => Elman.data.traces[id].tokens.reduce((top, token) => Math.max(top, token.bits), 0))
      );
    body.sky.replaceChildren(...ids.map((id) => skyline(id, width, most)));
    const under = Elman.svg("svg", {
      width,
      height: focus.tokens.length * 13 < width * 4 ? 56 : 0,
      "aria-hidden": "true",
      class: "axis",
    });
    if (focus.tokens.length * 13 < width * 4)
      under.append(
        Elman.wordsUnder(focus.tokens, {
          left: 0,
          wide: width / focus.tokens.length,
          chosen: Elman.state.token,
          height: 12,
          first: focus.first,
        })
      );
    body.words.replaceChildren(under);
    sums(ids);
    differences();
    Elman.numbers(body.numbers, "Surprisal of each word, in bits", ["word", ...ids.map(Elman.name)], () =>
      focus.tokens.map((token, row) => [
        Elman.shown(token),
        ...ids.map((id) => {
          const own = Elman.tokenAt(id, Elman.tokenIn(id, focus.first + row));
          return own ? Elman.number(own.bits, 2) : "–";
        }),
      ])
    );
  }

  function sums(ids) {
    const all = ids.map(function (id) {
      const { tokens } = Elman.data.traces[id];
      return { id, tokens, bits: tokens.reduce((sum, token) => sum + token.bits, 0) };
    });
    const alike = all.every(({ tokens }) => tokens.length === all[0].tokens.length);
    const rows = all
      .sort((a, b) => a.bits - b.bits)
      .map(({ id, tokens, bits }) => [
        Elman.label(id),
        Elman.number(bits, 1),
        Elman.number(bits / tokens.length),
        Elman.number(2 ** (bits / tokens.length), 1),
        Elman.percent(tokens.filter((token) => token.rank === 1).length / tokens.length),
        String(tokens.filter((token) => token.unknown).length),
      ]);
    const head = ["model", "bits in all", "a token", "perplexity", "guessed first", "unknown"];
    const unlike =
      "These models cut the text into different tokens: compare the bits in all, not those of a token.";
    body.sums.replaceChildren(
      el("h3", { text: "On this text" }),
      Elman.sheet("On this text", head, rows),
      alike ? "" : el("p", { class: "note", text: unlike })
    );
  }

  function differences() {
    const { model } = Elman.state,
      other = Elman.versus();
    if (!other) {
      body.gaps.replaceChildren(
        el("h3", { text: "Where two models differ" }),
        el("p", { class: "note", text: "Choose a second model above." })
      );
      return;
    }
    const gaps = Elman.gaps(model, other),
      focus = Elman.focus();
    const ranked = gaps
      .map((gap, row) => ({ gap, row }))
      .filter((one) => one.gap !== null)
      .sort((a, b) => a.gap - b.gap);
    const list = (chosen) =>
      el(
        "ol",
        { class: "plain" },
        chosen.map(({ gap, row }) =>
          el(
            "li",
            {},
            el(
              "button",
              {
                type: "button",
                class: "link",
                onclick: () => Elman.set({ token: focus.first + row, from: -1, to: -1, view: "nextword" }),
              },
              el("span", {
                class: "before",
                text: focus.tokens
                  .slice(Math.max(0, row - 3), row)
                  .map(Elman.shown)
                  .join(" "),
              }),
              " ",
              el("b", { text: Elman.shown(focus.tokens[row]) }),
              el("span", { class: "gap", text: ` ${Elman.number(Math.abs(gap), 1)} bits` })
            )
          )
        )
      );
    const better = ranked.filter((one) => one.gap < -0.05).slice(0, 5),
      worse = ranked
        .filter((one) => one.gap > 0.05)
        .slice(-5)
        .reverse();
    body.gaps.replaceChildren(
      el("h3", { text: "Where two models differ most" }),
      ranked.length
        ? el(
            "div",
            { class: "two tight" },
            el("div", {}, el("h4", { text: `${Elman.name(model)} knew better` }), list(better)),
            el("div", {}, el("h4", { text: `${Elman.name(other)} knew better` }), list(worse))
          )
        : el("p", {
            class: "note",
            text: "Their tokens do not cover the same characters, so no word can be compared.",
          })
    );
  }

  Elman.views.push({
    id: "surprisal",
    title: "Surprisal",
    build,
    update,
    on: ["token", "from", "to", "model", "versus", "models"],
    how:
      "each bar is −log₂ of the probability that the model gave the word that came: 1 bit is a coin " +
      "toss, 10 bits one chance in a thousand. Click a word to see what was expected instead.",
  });
})();

"use strict";
/* View 4: the memory of a unit as a conveyor belt (after Olah's "Understanding LSTM Networks"), with its
   numbers: the belt's height is the memory, its width the forget gate, and below it what each word erased
   and wrote. */
(function () {
  const { el, svg } = Elman;
  const LANE = 128,
    BARS = 58,
    LEFT = 46;
  const BESIDE = [
    ["vary", "that vary most"],
    ["hold", "that hold longest"],
    ["like", "most like it"],
    ["none", "none"],
  ];
  let body, fields, beside;

  function build(panel) {
    fields = Elman.layerFields(["layer", "unit"]);
    beside = Elman.choice("Beside it, the units", (value) => Elman.set({ beside: value }));
    body = {
      focus: el("div"),
      empty: el("div"),
      drawing: el("div"),
      step: el("p", { class: "context" }),
      note: el("p", { class: "note" }),
      lanes: el("div"),
      words: el("div"),
      numbers: el("div"),
    };
    body.drawing.append(
      el("div", { class: "row" }, fields.elements, beside),
      el(
        "ul",
        { class: "key-list" },
        el("li", {}, el("span", { class: "swatch belt-key" }), "belt: the thicker, the more is kept"),
        el("li", {}, el("span", { class: "swatch written" }), "written by this word"),
        el("li", {}, el("span", { class: "swatch erased" }), "erased by this word")
      ),
      body.step,
      body.note,
      body.lanes,
      body.words,
      body.numbers
    );
    panel.append(body.focus, body.empty, body.drawing);
  }

  /* The memory m of a unit as m = keep·m_before + write, for each cell that has one. keep and write: [T]. */
  Elman.belt = function (trace, at, unit) {
    const layer = trace.layers[at],
      part = Elman.memoryOf(layer),
      gates = layer.gates;
    const memory = Elman.column(layer.states[part], unit);
    const before = memory.map((_, t) => (t ? memory[t - 1] : layer.initial[part][unit]));
    const gate = (name) => Elman.column(gates[name], unit);
    if (trace.state === "reset")
      trace.tokens.forEach((token, t) => {
        if (token.input === "</s>") before[t] = 0;
      });
    let keep, write;
    if (gates.f) {
      keep = gate("f");
      const [i, g] = [gate("i"), gate("g")];
      write = i.map((value, t) => value * g[t]);
    } else if (gates.z) {
      keep = gate("z");
      const n = gate("n");
      write = n.map((value, t) => (1 - keep[t]) * value);
    } else {
      keep = memory.map(() => 0);
      write = memory;
    }
    return { part, memory, before, keep, write, erase: before.map((value, t) => -(1 - keep[t]) * value) };
  };

  /* The chosen unit, and two beside it. */
  function chosenUnits(trace, at, unit) {
    const layer = trace.layers[at];
    const gate = layer.gates.f || layer.gates.z || layer.states.h;
    const score = {
      vary: () => Elman.moments(layer.states.h).map((one) => one.variance),
      hold: () => Elman.moments(gate).map((one) => one.mean),
      like: () => Elman.likeness(layer.states[Elman.memoryOf(layer)], unit),
    }[Elman.state.beside];
    if (!score) return [unit];
    const others = score()
      .map((value, other) => [value, other])
      .filter(([, other]) => other !== unit)
      .sort((a, b) => b[0] - a[0]);
    return [unit, ...others.slice(0, 2).map(([, other]) => other)];
  }

  function lane(trace, at, unit, width) {
    const belt = Elman.belt(trace, at, unit),
      count = belt.memory.length,
      wide = (width - LEFT - 6) / count;
    const high = Math.max(...belt.memory, ...belt.before, 0.1),
      low = Math.min(...belt.memory, ...belt.before, -0.1);
    const y = (value) => 12 + (LANE - 24) * (1 - (value - low) / (high - low)),
      x = (t) => LEFT + (t + 0.5) * wide;
    const most = Math.max(...belt.write.map(Math.abs), ...belt.erase.map(Math.abs), 0.01),
      zero = LANE + BARS / 2;
    const root = svg("svg", {
      class: "lane",
      width,
      height: LANE + BARS,
      viewBox: `0 0 ${width} ${LANE + BARS}`,
      role: "img",
      "aria-label": `Belt of unit ${unit}: ${belt.part} from ${Elman.number(low)} to ${Elman.number(high)}`,
    });
    const chosen = Elman.state.token - trace.first;
    if (chosen >= 0 && chosen < count)
      root.append(
        svg("rect", { class: "band", x: LEFT + chosen * wide, y: 0, width: wide, height: LANE + BARS })
      );
    for (const tick of [low, 0, high])
      root.append(
        svg("line", {
          class: tick ? "grid" : "grid zero",
          x1: LEFT,
          x2: width - 6,
          y1: y(tick),
          y2: y(tick),
        }),
        Math.abs(y(tick) - y(0)) > 12 || !tick
          ? svg(
              "text",
              { class: "tick", x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" },
              Elman.number(tick, 1)
            )
          : ""
      );
    let from = [LEFT, y(belt.before[0])];
    const parts = svg("g", { class: `belt ${Elman.tint(Elman.card(Elman.state.model))}` });
    for (let t = 0; t < count; t++) {
      // reset: a new belt
      if (t && belt.before[t] !== belt.memory[t - 1]) from = [x(t) - wide / 2, y(belt.before[t])];
      const to = [x(t), y(belt.memory[t])];
      parts.append(
        svg("line", {
          x1: from[0].toFixed(1),
          y1: from[1].toFixed(1),
          x2: to[0].toFixed(1),
          y2: to[1].toFixed(1),
          "stroke-width": (0.8 + 9 * belt.keep[t] ** 2).toFixed(1),
        })
      );
      from = to;
    }
    root.append(parts, svg("line", { class: "grid zero", x1: LEFT, x2: width - 6, y1: zero, y2: zero }));
    // the scale of the bars: what the tallest bar of this lane stands for
    for (const [value, at] of [
      [most, LANE + 3],
      [-most, LANE + BARS - 3],
    ])
      root.append(
        svg("line", { class: "grid", x1: LEFT, x2: width - 6, y1: at, y2: at }),
        svg(
          "text",
          { class: "tick bars", x: LEFT - 6, y: at + 4, "text-anchor": "end" },
          `${value > 0 ? "+" : ""}${Elman.number(value, most < 0.95 ? 2 : 1)}`
        )
      );
    const half = Math.max(0.6, wide * 0.38);
    for (let t = 0; t < count; t++)
      for (const [name, value, shift] of [
        ["erased", belt.erase[t], -half],
        ["written", belt.write[t], 0],
      ]) {
        const tall = (Math.abs(value) / most) * (BARS / 2 - 3);
        if (tall > 0.3)
          root.append(
            svg("rect", {
              class: name,
              x: (x(t) + shift).toFixed(1),
              y: (value > 0 ? zero - tall : zero).toFixed(1),
              width: half.toFixed(1),
              height: tall.toFixed(1),
            })
          );
      }
    const place = (event) =>
      Elman.clamp(
        Math.floor((event.clientX - root.getBoundingClientRect().left - LEFT) / wide),
        0,
        count - 1
      );
    root.addEventListener("pointermove", function (event) {
      const t = place(event),
        token = trace.tokens[t];
      Elman.tip(event.clientX, event.clientY, [
        `reads ${Elman.visible(token.input)}, then predicts ${Elman.shown(token)}`,
        `before: ${Elman.number(belt.before[t])}`,
        `kept: ${Elman.percent(belt.keep[t])}, erased: ${Elman.number(belt.erase[t])}`,
        `written: ${Elman.number(belt.write[t])}`,
        `after: ${Elman.number(belt.memory[t])}`,
      ]);
    });
    root.addEventListener("pointerleave", () => Elman.tip());
    root.addEventListener("click", (event) =>
      Elman.set({ token: trace.first + place(event), unit, from: -1, to: -1 })
    );
    const kept = belt.keep.reduce((sum, value) => sum + value, 0) / count;
    return el(
      "div",
      { class: "lane-box" },
      el(
        "h3",
        {},
        `Unit ${unit} `,
        el("small", { text: `keeps ${Elman.percent(kept)} of ${belt.part} a word on average` }),
        unit === Elman.unitOf(trace)
          ? ""
          : el("button", {
              type: "button",
              class: "link",
              text: "choose",
              "aria-label": `choose unit ${unit}`,
              onclick: () => Elman.set({ unit }),
            })
      ),
      root
    );
  }

  const MADE_ANEW =
    "A simple RNN has no belt: it makes its whole state anew at every word, so all is erased and all is written.";
  const NOTES = {
    lstm: "",
    gru:
      "A GRU has no cell of its own: its hidden state is the belt, and the update gate z is what keeps " +
      "it.",
    rnn: MADE_ANEW,
    "rnn-relu": MADE_ANEW,
  };

  function update() {
    const { model, token } = Elman.state,
      trace = Elman.detail(model);
    Elman.focusSwitch(body.focus);
    const instead = Elman.instead(model, "cell state");
    body.empty.replaceChildren(...(instead ? [instead] : []));
    body.drawing.hidden = Boolean(instead);
    if (instead) return;
    fields.update(trace);
    beside.update(BESIDE, Elman.state.beside);
    body.note.textContent = [NOTES[Elman.card(model).cell], Elman.windowNote(trace)]
      .filter(Boolean)
      .join(" ");
    const at = Elman.layerOf(trace),
      unit = Elman.unitOf(trace),
      width = Elman.room(body.drawing);
    body.step.replaceChildren(...Elman.stepTold(trace.tokens[token - trace.first]));
    body.lanes.replaceChildren(...chosenUnits(trace, at, unit).map((one) => lane(trace, at, one, width)));
    const count = trace.layers[at].states.h.length,
      under = svg("svg", { width, height: 60, class: "axis", "aria-hidden": "true" });
    under.append(
      Elman.wordsUnder(trace.tokens.slice(0, count), {
        left: LEFT,
        wide: (width - LEFT - 6) / count,
        chosen: token,
        height: 12,
        first: trace.first,
        read: true,
      })
    );
    body.words.replaceChildren(under);
    const belt = Elman.belt(trace, at, unit);
    Elman.numbers(
      body.numbers,
      `Unit ${unit} at each word`,
      ["word read", "before", "kept", "erased", "written", "after"],
      () =>
        belt.memory.map((value, t) => [
          Elman.visible(trace.tokens[t].input),
          Elman.number(belt.before[t]),
          Elman.percent(belt.keep[t]),
          Elman.number(belt.erase[t]),
          Elman.number(belt.write[t]),
          Elman.number(value),
        ])
    );
  }

  Elman.views.push({
    id: "conveyor",
    title: "Conveyor",
    inside: true,
    step: true,
    build,
    update,
    on: ["token", "unit", "layer", "model", "detail", "models", "beside"],
    how:
      "the belt carries the memory of one unit from word to word, and it is as thick as the gate lets " +
      "it through. Where it thins out the unit forgets; bars below, on a scale of their own at the left, " +
      "show what each word erased and wrote: their sum is the step of the belt.",
  });
})();

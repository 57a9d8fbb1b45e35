"use strict";
/* View 6: how far back the loss of a word is felt: the triangle |∂L_t/∂h_s| and its norm against the lag t −
   s, for up to three recurrent models on the same text. Not here: computing gradients (the trace has them). */
(function () {
  const { el } = Elman;
  const SIDE = 3,
    ENOUGH = 4; // models side by side; rows behind a median
  const NORMS = [
    ["memory", "memory: c of an LSTM, h of the others"],
    ["h", "hidden state h"],
    ["x", "word read x"],
  ];
  let body,
    norm,
    layer,
    scale,
    drawn = [];

  function build(panel) {
    norm = Elman.choice("Gradient with respect to the", (value) => Elman.set({ norm: value }));
    layer = Elman.choice("Layer", (value) => Elman.set({ layer: Number(value) }));
    scale = Elman.choice("Curve", (value) => Elman.set({ scale: value }));
    body = {
      empty: el("div"),
      drawing: el("div"),
      ramp: el("div", { class: "push" }),
      grid: el("div", { class: "triangles" }),
      note: el("p", { class: "note" }),
      key: el("div"),
      curve: el("div"),
      facts: el("div"),
      numbers: el("div"),
      words: el("p", { class: "context" }),
    };
    body.drawing.append(
      el("div", { class: "row" }, norm, layer, scale, body.ramp),
      body.grid,
      body.note,
      el("h3", { text: "Norm against lag" }),
      body.key,
      body.curve,
      body.facts,
      body.numbers
    );
    panel.append(body.empty, body.drawing);
  }

  function update() {
    const ids = Elman.shownModels().filter((id) => Elman.isRecurrent(Elman.card(id))),
      focus = Elman.state.model;
    const shown = [...new Set(ids.includes(focus) ? [focus, ...ids] : ids)]
      .slice(0, SIDE)
      .sort((a, b) => ids.indexOf(a) - ids.indexOf(b));
    const ready = shown.map((id) => [id, Elman.detail(id)]).filter(([, trace]) => trace && trace.gradients);
    const instead = ready.length
      ? null
      : Elman.instead(shown[0] || focus, "gradient through time") ||
        el("p", { class: "empty", text: "These traces were made without gradients." });
    body.empty.replaceChildren(...(instead ? [instead] : []));
    body.drawing.hidden = Boolean(instead);
    if (instead) return;
    const deepest = Math.max(...ready.map(([, trace]) => trace.layers.length));
    norm.update(NORMS, Elman.state.norm);
    layer.update(
      Elman.state.norm === "x" ? [] : Array.from({ length: deepest }, (_, k) => [String(k), String(k + 1)]),
      String(Math.min(Elman.state.layer, deepest - 1))
    );
    scale.update(
      [
        ["relative", "beside lag 0"],
        ["absolute", "as it is"],
      ],
      Elman.state.scale
    );
    const rows = ready.map(([id, trace]) => ({ id, trace, rows: Elman.triangle(id, trace) }));
    const most = Math.max(...rows.flatMap((one) => one.rows.map((row) => Math.max(...row))));
    const sizes = rows
      .flatMap((one) => one.rows.flat())
      .filter((value) => value > 0)
      .sort((a, b) => a - b);
    // 2 % lie below the scale
    const floor = Elman.clamp((sizes[Math.floor(sizes.length / 50)] || 0) / most, 1e-8, 1e-2);
    triangles(rows, most, floor);
    Elman.decay(body, rows, Elman.room(body.drawing));
    body.ramp.replaceChildren(
      Elman.ramp("s", [floor * most, Math.sqrt(floor) * most, most].map(Elman.small), "norm of the gradient")
    );
    const left = ids.length - shown.length,
      others = Elman.shownModels().length - ids.length;
    body.note.textContent = [
      Elman.windowNote(rows[0].trace),
      left > 0 ? `Three models at most are drawn; ${Elman.count(left, "more")} chosen.` : "",
      others ? "Models without a recurrence have no way back for a gradient and are left out." : "",
    ]
      .filter(Boolean)
      .join(" ");
  }

  function triangles(list, most, floor) {
    const across = innerWidth < 700 ? 1 : list.length,
      room = Math.min(460, Math.floor((Elman.room(body.drawing) - 18 * (across - 1)) / across));
    while (drawn.length < list.length) {
      const box = { title: el("h3"), map: el("div") };
      box.element = el("div", {}, box.title, box.map);
      box.matrix = Elman.matrix(box.map);
      drawn.push(box);
    }
    body.grid.replaceChildren(...drawn.slice(0, list.length).map((box) => box.element));
    list.forEach(function ({ id, trace, rows }, k) {
      const count = rows.length,
        tokens = trace.tokens,
        at = Elman.tokenIn(id, Elman.state.token) - trace.first,
        table = Elman.table("s");
      const left = room >= 300 && count <= 80 ? 62 : 0, // room for the words predicted, beside the rows
        side = room - left;
      const what = Elman.normOf(id);
      drawn[k].title.replaceChildren(...Elman.label(id), el("small", { text: `  |∂L/∂${what}|` }));
      const pick = (row) => {
        const index = trace.first + row,
          back =
            id === Elman.state.model
              ? index
              : Elman.align(Elman.state.model, id).findIndex((one) => one.rows.includes(index - trace.first));
        if (back >= 0)
          Elman.set({
            token: id === Elman.state.model ? index : back + Elman.focus().first,
            from: -1,
            to: -1,
          });
      };
      drawn[k].matrix.draw({
        key: [
          id,
          side,
          trace.first,
          Elman.data.text,
          Elman.data.policy,
          what,
          Elman.state.layer,
          most,
          table[0],
          table[255],
        ].join(),
        columns: count,
        rows: count,
        width: side,
        rowHeight: side / count,
        left,
        bottom: 60,
        beside: left ? tokens.map(Elman.shown) : null,
        table,
        tokens,
        first: trace.first,
        chosen: { row: at, column: -1 },
        level(row, column) {
          if (column > row) return -1;
          const value = rows[row][column] / most;
          return value > 0 ? Math.round(255 * Elman.clamp(1 - Math.log(value) / Math.log(floor), 0, 1)) : 0;
        },
        label: `Gradient triangle of ${Elman.name(id)}: a line for each word predicted. Up and down choose the word.`,
        hover(row, column) {
          const title = `loss at ${Elman.shown(tokens[row])}`;
          return column > row
            ? [title, "the future has no influence"]
            : [
                title,
                `${Elman.count(row - column, "word")} back, after reading ${Elman.visible(tokens[column].input)}`,
                `|∂L/∂${what}| = ${Elman.small(rows[row][column])}`,
              ];
        },
        pick,
        move: (down) =>
          pick(Elman.clamp(Elman.tokenIn(id, Elman.state.token) - trace.first + down, 0, count - 1)),
      });
    });
  }

  Elman.views.push({
    id: "gradients",
    title: "Gradients",
    inside: true,
    build,
    update,
    on: ["token", "layer", "norm", "scale", "model", "detail", "models"],
    how:
      "each line of a triangle is the loss of one word, each column the state after one word was read, and " +
      "the colour how strongly that loss pulls on it: the scale above the triangles runs from least, at its " +
      "left end, to most. A gradient that vanishes fades to the left end's colour near the diagonal: with these " +
      "weights words further back do not matter to this loss. A line wholly in that colour is a word that was " +
      "expected anyway.",
  });
})();

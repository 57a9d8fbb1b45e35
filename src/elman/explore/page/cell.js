"use strict";
/* View 5: one cell stepped gate by gate, with the numbers of the chosen unit and word in the drawing and
   beside it. */
(function () {
  const { el, svg } = Elman;
  let body,
    fields,
    timer = 0;

  function build(panel) {
    fields = Elman.layerFields(["layer", "unit"]);
    body = {
      focus: el("div"),
      empty: el("div"),
      drawing: el("div"),
      picture: el("div", { class: "picture" }),
      steps: el("ol", { class: "steps" }),
      where: el("p", { class: "context" }),
      told: el("p", { class: "told", "aria-live": "polite" }),
    };
    body.play = el("button", { type: "button", text: "Play", onclick: play });
    const buttons = el(
      "div",
      { class: "row" },
      el("button", {
        type: "button",
        id: "step-before",
        text: "‹ step",
        "aria-label": "step back",
        onclick: () => go(-1),
      }),
      el("button", {
        type: "button",
        id: "step-after",
        class: "primary",
        text: "step ›",
        "aria-label": "step forward",
        onclick: () => go(1),
      }),
      body.play,
      el("button", {
        type: "button",
        text: "next word ›",
        onclick: () =>
          Elman.set({ token: Elman.clamp(Elman.state.token + 1, 0, last()), from: -1, to: -1, step: 0 }),
      })
    );
    body.drawing.append(
      el("div", { class: "row" }, fields.elements),
      body.where,
      el("div", { class: "cell-view" }, body.picture, el("div", {}, buttons, body.steps, body.told))
    );
    panel.append(body.focus, body.empty, body.drawing);
  }
  const last = () => Elman.focus().first + Elman.focus().tokens.length - 1;
  const shape = () => Elman.cells[Elman.card(Elman.state.model).cell];
  function go(by) {
    // past the last step: the first step of the next word
    const count = shape().steps.length,
      { step, token } = Elman.state,
      next = Elman.clamp(step, 0, count - 1) + by;
    if (next >= count) {
      if (token < last()) Elman.set({ step: 0, token: token + 1, from: -1, to: -1 });
      else stop();
    } else if (next < 0) {
      if (token > 0) Elman.set({ step: count - 1, token: token - 1, from: -1, to: -1 });
    } else Elman.set({ step: next });
  }
  Elman.stepCell = (by) => {
    if (Elman.isRecurrent(Elman.card(Elman.state.model))) go(by);
  };
  function stop() {
    clearInterval(timer);
    timer = 0;
    body.play.textContent = "Play";
  }
  function play() {
    if (timer) {
      stop();
      return;
    }
    body.play.textContent = "Pause";
    timer = setInterval(() => {
      if (Elman.state.view === "cell") go(1);
      else stop();
    }, 1600);
  }

  function draw(cell, values, step, input) {
    const root = svg("svg", {
      viewBox: "0 0 540 396",
      class: "cell",
      role: "img",
      "aria-label": `The cell at step ${step + 1}, ${cell.steps[step].name}: ${cell.steps[step].numbers(values)}`,
    });
    const state = (own) => (own < 0 ? "given" : own < step ? "done" : own === step ? "on" : "off");
    root.append(
      svg(
        "defs",
        {},
        ["given", "done", "on", "off"].map((name) =>
          svg(
            "marker",
            {
              id: `tip-${name}`,
              viewBox: "0 0 8 8",
              refX: 7,
              refY: 4,
              markerWidth: 11,
              markerHeight: 11,
              markerUnits: "userSpaceOnUse",
              orient: "auto",
              class: name,
            },
            svg("path", { d: "M0 0 8 4 0 8z" })
          )
        )
      )
    );
    for (const pass of ["off", "given", "done", "on"])
      // the wires of this step lie on top
      for (const [own, path] of cell.wires)
        if (state(own) === pass)
          root.append(
            svg("path", { d: path, pathLength: 1, class: `wire ${pass}`, "marker-end": `url(#tip-${pass})` })
          );
    for (const [own, x, y, name, squash] of cell.gates)
      root.append(
        svg(
          "g",
          { class: `gate ${state(own)}` },
          name
            ? svg("rect", { x: x - 24, y: y - 17, width: 48, height: 34, rx: 6 })
            : svg("ellipse", { cx: x, cy: y, rx: 24, ry: 15 }),
          svg("text", { x, y: name ? y - 1 : y + 5, "text-anchor": "middle" }, name || squash),
          name ? svg("text", { x, y: y + 12, "text-anchor": "middle", class: "squash" }, squash) : ""
        )
      );
    for (const [own, x, y, sign] of cell.nodes)
      root.append(
        svg(
          "g",
          { class: `node ${state(own)}` },
          svg("circle", { cx: x, cy: y, r: 12 }),
          svg("text", { x, y: y + 6, "text-anchor": "middle" }, sign)
        )
      );
    for (const [own, x, y, anchor, key, before] of cell.numbers) {
      const shown = state(own),
        value =
          key === "x"
            ? input
            : shown === "off"
              ? ""
              : typeof values[key] === "string"
                ? values[key]
                : Elman.number(values[key], Math.abs(values[key]) < 0.0995 ? 3 : 2);
      if (value !== "")
        root.append(svg("text", { x, y, class: `value ${shown}`, "text-anchor": anchor }, before + value));
    }
    body.picture.replaceChildren(root);
  }

  function update() {
    const { model, token } = Elman.state,
      trace = Elman.detail(model);
    Elman.focusSwitch(body.focus);
    const beyond = trace && token - trace.first >= trace.layers[0].states.h.length;
    const instead = beyond
      ? el("p", { class: "empty" }, Elman.stepTold(null))
      : Elman.instead(model, "cell");
    body.empty.replaceChildren(...(instead ? [instead] : []));
    body.drawing.hidden = Boolean(instead);
    body.play.hidden = Elman.calm();
    if (instead) {
      if (timer) stop();
      return;
    }
    fields.update(trace);
    const at = Elman.layerOf(trace),
      layer = trace.layers[at],
      unit = Elman.unitOf(trace),
      t = token - trace.first,
      cell = shape();
    const step = Elman.clamp(Elman.state.step, 0, cell.steps.length - 1),
      row = trace.tokens[t];
    const fresh = trace.state === "reset" && row.input === "</s>";
    const initial = Object.fromEntries(
      Object.keys(layer.states).map((part) => [
        part,
        fresh ? 0 : t ? layer.states[part][t - 1][unit] : layer.initial[part][unit],
      ])
    );
    const values = cell.values(layer, initial, t, unit);
    const units = layer.states.h[0].length;
    draw(cell, { ...values, all: `all ${Elman.count(units, "unit")}` }, step, at ? `h of layer ${at}` : Elman.visible(row.input));
    body.where.replaceChildren(
      `Unit ${unit} of layer ${at + 1}. `,
      ...Elman.stepTold(row),
      ` Token ${token + 1} of ${trace.total}.`
    );
    const focused = [...body.steps.children].findIndex((item) => item.contains(document.activeElement));
    body.steps.replaceChildren(
      ...cell.steps.map((one, k) =>
        el(
          "li",
          { class: k === step ? "on" : k < step ? "done" : "off" },
          el(
            "button",
            {
              type: "button",
              "aria-current": k === step ? "step" : null,
              onclick: () => Elman.set({ step: k }),
            },
            el("b", { text: one.name }),
            el("span", { class: "equation" }, formula(one.equation)),
            k <= step ? el("span", { class: "result", text: one.numbers(values) }) : ""
          )
        )
      )
    );
    if (focused >= 0) body.steps.children[Math.min(focused, cell.steps.length - 1)].firstChild.focus();
    body.told.textContent = cell.steps[step].tell(values);
  }
  /* "W_f h₋" → W with a small f, h with a small t−1. */
  function formula(text) {
    return text
      .split(/(_[a-z]|₋)/)
      .map((part) =>
        part === "₋"
          ? el("sub", { text: "t−1" })
          : part.startsWith("_")
            ? el("sub", { text: part.slice(1) })
            : part
      );
  }

  Elman.views.push({
    id: "cell",
    title: "Inside the cell",
    inside: true,
    step: true,
    build,
    update,
    on: ["token", "unit", "layer", "model", "detail", "models", "step"],
    how:
      "step through one unit at one word, gate by gate. What this step computes stands out, with its " +
      "equation and its real numbers; what is still to come is faint. The numbers are of one unit, but U sums over " +
      "the state of all units of the layer, and W over all of the input.",
  });
})();

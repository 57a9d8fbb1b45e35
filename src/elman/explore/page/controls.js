"use strict";
/* Controls shared by the views: groups of radio buttons, choices, number fields, the line of words under a
   plot, the tip that follows the pointer. All of them speak to a keyboard and a screen reader. */
(function () {
  const { el } = Elman;

  /* A radio group drawn as a row of buttons: arrows move and choose, as ARIA asks. options: [[value,
     label]…]. */
  Elman.radios = function (host, label, options, value, choose) {
    host.setAttribute("role", "radiogroup");
    host.setAttribute("aria-label", label);
    host.classList.add("switch");
    const had = host.contains(document.activeElement);
    host.replaceChildren(
      ...options.map(([name, text, tint]) =>
        el(
          "button",
          {
            type: "button",
            role: "radio",
            "data-value": name,
            "aria-checked": String(name === value),
            tabindex: name === value ? 0 : -1,
            onclick: () => choose(name),
          },
          tint ? el("span", { class: `dot ${tint}` }) : null,
          text
        )
      )
    );
    if (!options.some(([name]) => name === value) && host.firstChild) host.firstChild.tabIndex = 0;
    if (had) host.querySelector('[tabindex="0"]')?.focus();
    host.onkeydown = function (event) {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const buttons = [...host.children],
        at = buttons.indexOf(document.activeElement);
      const next = buttons[(at + step + buttons.length) % buttons.length];
      next.focus();
      choose(next.dataset.value);
    };
    return host;
  };

  /* A labelled <select>; `update(options, value)` refills it only when it changed. */
  Elman.choice = function (label, choose) {
    const select = el("select", { onchange: () => choose(select.value) });
    const field = el("label", { class: "field" }, el("span", { text: label }), select);
    let shown = "";
    field.update = function (options, value) {
      const key = JSON.stringify(options);
      if (key !== shown) {
        select.replaceChildren(...options.map(([name, text]) => el("option", { value: name, text })));
        shown = key;
      }
      select.value = value;
      field.hidden = options.length === 0;
    };
    return field;
  };

  /* A labelled whole number with its own bounds. */
  Elman.whole = function (label, choose) {
    const input = el("input", { type: "number", inputmode: "numeric", min: 0, step: 1 });
    const field = el("label", { class: "field" }, el("span", { text: label }), input);
    input.addEventListener("change", () => {
      if (input.value !== "")
        choose(Elman.clamp(Math.round(Number(input.value)), Number(input.min), Number(input.max)));
    });
    field.update = function (value, low, high) {
      Object.assign(input, { min: low, max: high });
      if (document.activeElement !== input || Number(input.value) !== value) input.value = value;
    };
    return field;
  };

  /* Layer, part and unit of the model in focus, as three fields that write the state. */
  Elman.layerFields = function (wanted) {
    const fields = {
      layer: Elman.choice("Layer", (value) => Elman.set({ layer: Number(value) })),
      part: Elman.choice("Part", (value) => Elman.set({ part: value })),
      unit: Elman.whole("Unit", (value) => Elman.set({ unit: value })),
    };
    return {
      elements: wanted.map((name) => fields[name]),
      update(trace) {
        const at = Elman.layerOf(trace),
          layer = trace.layers[at];
        fields.layer.update(
          trace.layers.map((_, k) => [String(k), String(k + 1)]),
          String(at)
        );
        fields.part.update(
          Elman.partsOf(layer).map((part) => [part, Elman.PARTS[part]]),
          Elman.partOf(layer)
        );
        fields.unit.update(Elman.unitOf(trace), 0, layer.states.h[0].length - 1);
      },
    };
  };

  /* The recurrent models among the chosen ones, as radio buttons; they change the model in focus. */
  Elman.focusSwitch = function (host) {
    const ids = Elman.shownModels().filter((id) => Elman.isRecurrent(Elman.card(id)));
    host.hidden = ids.length < 2 && ids[0] === Elman.state.model;
    Elman.radios(
      host,
      "Model",
      ids.map((id) => [id, Elman.name(id), Elman.tint(Elman.card(id))]),
      Elman.state.model,
      (id) =>
        Elman.set({ token: Elman.tokenIn(id, Elman.state.token), from: -1, to: -1, model: id, unit: -1 })
    );
  };

  /* What stands in place of a view: still reading, no states to show, or why it failed. Null: go on and
     draw. */
  Elman.instead = function (id, what) {
    const card = Elman.card(id);
    if (!Elman.isRecurrent(card)) {
      const others = Elman.shownModels().filter((other) => Elman.isRecurrent(Elman.card(other)));
      return el(
        "p",
        { class: "empty" },
        `No ${what} here: ${Elman.whyNot(card)} `,
        others.length
          ? `Choose ${others.map(Elman.name).join(" or ")} above.`
          : "Add an RNN, a GRU or an LSTM under Models to see them."
      );
    }
    const failed = Elman.detailFailed(id);
    if (failed) return el("p", { class: "empty", text: `${failed.cause} ${failed.reason} ${failed.remedy}` });
    return Elman.detail(id)
      ? null
      : el("p", { class: "empty busy", text: `Reading the states of ${card.name} …` });
  };

  /* Words under a plot whose column t begins at x = left + t·wide; too narrow columns leave words out. */
  Elman.wordsUnder = function (tokens, { left, wide, chosen, height, first, read }) {
    const group = Elman.svg("g", { class: "words-under", "aria-hidden": "true" });
    const every = Math.max(1, Math.ceil(13 / wide));
    tokens.forEach(function (token, t) {
      if (first + t !== chosen && (t % every || Math.abs(first + t - chosen) < every)) return;
      const x = left + (t + 0.5) * wide;
      const name = read ? Elman.visible(token.input) : Elman.shown(token);
      group.append(
        Elman.svg(
          "text",
          {
            x,
            y: height,
            transform: `rotate(-55 ${x} ${height})`,
            "text-anchor": "end",
            class: first + t === chosen ? "chosen" : null,
          },
          name.length > 12 ? `${name.slice(0, 11)}…` : name
        )
      );
    });
    return group;
  };

  /* The tip beside the pointer. */
  const tip = Elman.byId("tip");
  Elman.tip = function (x, y, lines) {
    if (!lines) {
      tip.hidden = true;
      return;
    }
    tip.replaceChildren(
      ...lines.map((line, k) => (typeof line === "string" ? el(k ? "div" : "strong", { text: line }) : line))
    );
    tip.hidden = false;
    const right = x > innerWidth / 2,
      low = y > innerHeight * 0.7;
    tip.style.transform =
      `translate(${Math.round(x)}px, ${Math.round(y)}px) ` +
      `translate(${right ? "calc(-100% - 12px)" : "12px"}, ${low ? "calc(-100% - 12px)" : "16px"})`;
  };
  addEventListener("scroll", () => Elman.tip(), { passive: true });

  /* A table that scrolls sideways by itself; rows: [[name or nodes, cell…]…]. */
  Elman.sheet = function (label, head, rows, caption) {
    const lines = rows.map(([name, ...cells]) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, name),
        cells.map((text) => el("td", { text }))
      )
    );
    const top = el(
      "thead",
      {},
      el(
        "tr",
        {},
        head.map((text) => el("th", { scope: "col", text }))
      )
    );
    const sheet = el(
      "table",
      {},
      caption ? el("caption", {}, el("span", { text: caption })) : null,
      top,
      el("tbody", {}, lines)
    );
    return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, sheet);
  };
  /* The name of a model with its colour. */
  Elman.label = (id) => [el("span", { class: `dot ${Elman.tint(Elman.card(id))}` }), Elman.name(id)];

  /* Width at hand for a drawing inside `host`, in pixels. */
  Elman.room = (host) => Math.max(240, Math.floor(host.clientWidth || host.parentElement.clientWidth || 600));
})();

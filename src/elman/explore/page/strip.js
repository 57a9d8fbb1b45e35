"use strict";
/* The strip: the words of the text as a list box, coloured by surprisal, by the difference of two models, by
   the values of a unit or by the gradient of the chosen word. Not here: what the colours mean (colour.js),
   moving and choosing (selection.js). */
(function () {
  const { el } = Elman;
  const strip = Elman.byId("strip");
  let boxes = [],
    first = 0,
    text = null,
    dragged = null,
    painted = [];

  function build() {
    const trace = Elman.focus();
    first = trace.first;
    boxes = [];
    const groups = [];
    let group = null,
      sentence = null,
      last = null;
    for (const token of trace.tokens) {
      if (token.sentence !== sentence) {
        group = el("div", { role: "group", "aria-label": `sentence ${token.sentence}`, class: "sentence" });
        groups.push(group);
        sentence = token.sentence;
        last = null;
      }
      const box = el("span", {
        role: "option",
        tabindex: -1,
        "aria-selected": "false",
        text: Elman.shown(token),
      });
      box.kind =
        `word${last && last.end === token.start && token.token !== "</s>" ? " glued" : ""}` +
        `${token.unknown ? " unknown" : ""}${token.token === "</s>" ? " end" : ""}`;
      box.className = box.kind;
      box.place = first + boxes.length;
      boxes.push(box);
      group.append(box);
      last = token;
    }
    strip.replaceChildren(...groups);
    strip.classList.toggle("long", boxes.length > 160);
    text = trace;
    painted = [];
    current = null;
  }

  /* The class that colours each row, and the legend, for the colouring that is chosen. */
  function colours() {
    const { colour, model, token } = Elman.state,
      trace = Elman.focus(),
      versus = Elman.versus();
    if (colour === "difference" && versus)
      return [
        Elman.gaps(model, versus).map(Elman.gapClass),
        Elman.legends.gap(Elman.name(model), Elman.name(versus)),
      ];
    const detail = colour === "unit" || colour === "gradient" ? Elman.detail(model) : null;
    if (detail) {
      const at = Elman.layerOf(detail),
        layer = detail.layers[at],
        shift = detail.first - first;
      const classes = new Array(boxes.length).fill("none");
      if (colour === "unit") {
        const part = Elman.partOf(layer),
          unit = Elman.unitOf(detail),
          values = Elman.column(Elman.rows(layer, part), unit);
        const most = Math.max(...values.map(Math.abs), 1),
          signed = Elman.SIGNED.has(part);
        values.forEach((value, t) => {
          classes[t + shift] = signed ? Elman.signedClass(value, most) : Elman.gateClass(value);
        });
        const label = `unit ${unit} of ${part}, layer ${at + 1}`;
        return [classes, signed ? Elman.legends.signed(label, most) : Elman.legends.gate(label)];
      }
      const row = Elman.triangle(model, detail)?.[token - detail.first];
      if (row) {
        const most = Math.max(...row);
        row.forEach((norm, s) => {
          classes[s + shift] = Elman.normClass(norm / most);
        });
        return [classes, Elman.legends.norm()];
      }
    }
    return [trace.tokens.map((token) => Elman.bitsClass(token.bits)), Elman.legends.surprisal()];
  }

  function paint() {
    const [classes, legend] = colours(),
      range = dragged || Elman.range();
    boxes.forEach(function (box, row) {
      const inside = range && box.place >= range[0] && box.place <= range[1];
      const name = [box.kind, classes[row], inside && "inside", box.place === Elman.state.token && "chosen"]
        .filter(Boolean)
        .join(" ");
      if (painted[row] === name) return;
      painted[row] = name;
      box.className = name;
      box.setAttribute("aria-selected", String(Boolean(inside)));
    });
    Elman.byId("legend").replaceChildren(legend);
  }

  let current = null;
  function choose() {
    const box = boxes[Elman.state.token - first];
    if (!box) return;
    if (current && current !== box) {
      current.tabIndex = -1;
      current.removeAttribute("aria-current");
      current.removeAttribute("aria-label");
    }
    box.tabIndex = 0;
    box.setAttribute("aria-current", "true");
    const token = Elman.focus().tokens[box.place - first];
    const spoken = token.token === "</s>" ? "end of sentence" : token.text || token.token;
    box.setAttribute("aria-label", `${spoken}, ${Elman.number(token.bits, 1)} bits`);
    if (current !== box && strip.scrollHeight > strip.clientHeight + 4) {
      const top = box.offsetTop - strip.offsetTop;
      if (top < strip.scrollTop || top + box.offsetHeight > strip.scrollTop + strip.clientHeight)
        strip.scrollTop = top - strip.clientHeight / 2;
    }
    current = box;
  }

  Elman.describe = function (index) {
    const token = Elman.tokenAt(Elman.state.model, index);
    const others = Elman.shownModels()
      .map(function (id) {
        const own = Elman.tokenAt(id, Elman.tokenIn(id, index));
        return own
          ? `${Elman.name(id)} ${Elman.number(own.bits, 1)} bits, rank ${Elman.grouped(own.rank)}`
          : null;
      })
      .filter(Boolean);
    return {
      token,
      title: `“${Elman.shown(token)}” ${index ? `after “${Elman.visible(token.input)}”` : "begins the text"}`,
      lines: others,
      unknown: token.unknown ? "not in the vocabulary: read as <unk>" : "",
    };
  };

  Elman.drawStrip = function (changed) {
    const trace = Elman.focus();
    if (!trace) {
      strip.replaceChildren();
      boxes = [];
      text = null;
      return;
    }
    if (trace !== text) build();
    switches();
    paint();
    choose();
    const focused =
      strip.contains(document.activeElement) && document.activeElement !== boxes[Elman.state.token - first];
    if (focused) boxes[Elman.state.token - first]?.focus({ preventScroll: true });
    if (["token", "model", "from", "to", "read"].some((name) => changed.has(name))) tell();
  };
  function tell() {
    const range = Elman.range(),
      told = Elman.describe(Elman.state.token);
    const noun = Elman.card(Elman.state.model).unit === "word" ? "Word" : "Token";
    const place = `${noun} ${Elman.state.token + 1} of ${Elman.focus().total}`;
    Elman.say(
      range
        ? `${Elman.count(range[1] - range[0] + 1, "word")} chosen: view 7 tells which units stay on. ` +
            `${place}: ${told.title}.`
        : `${place}: ${told.title}. ${told.lines.join("; ")}. ${told.unknown}`
    );
  }

  const against = Elman.choice("beside", (value) => Elman.set({ versus: value }));
  Elman.byId("colouring").after(against);

  function switches() {
    const ids = Elman.shownModels(),
      { colour, model } = Elman.state;
    const options = ids.map((id) => [`surprisal:${id}`, Elman.name(id), Elman.tint(Elman.card(id))]);
    const other = Elman.versus();
    if (other) options.push([`difference:${other}`, `${Elman.name(model)} − ${Elman.name(other)}`]);
    against.update(
      colour === "difference" && ids.length > 2
        ? ids.filter((id) => id !== model).map((id) => [id, Elman.name(id)])
        : [],
      other
    );
    if (Elman.isRecurrent(Elman.card(model)))
      options.push([`unit:${model}`, "a unit"], [`gradient:${model}`, "gradient back"]);
    const value = `${colour}:${colour === "difference" ? other : model}`;
    Elman.radios(Elman.byId("colouring"), "Colour the words by", options, value, function (chosen) {
      const [kind, id] = chosen.split(":");
      if (kind === "difference") Elman.set({ colour: kind, versus: id });
      else if (id === Elman.state.model) Elman.set({ colour: kind });
      else
        Elman.set({
          colour: kind,
          token: Elman.tokenIn(id, Elman.state.token),
          from: -1,
          to: -1,
          model: id,
          unit: -1,
          versus: Elman.state.model,
        });
    });
  }

  Elman.strip = {
    element: strip,
    first: () => first,
    boxes: () => boxes,
    box: (place) => boxes[place - first],
    drag: (range) => {
      dragged = range;
      paint();
    },
  };
})();

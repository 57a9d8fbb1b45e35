"use strict";
/* The strip: the words of the text as a list box, coloured by surprisal, by the difference of two models, or
   by what is in the model after it has read a word: the value of a unit, the gradient of the chosen word's
   loss. Not here: what the colours mean (colour.js), moving and choosing (selection.js). */
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
    current = readBox = null;
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
        classes = new Array(boxes.length).fill("none");
      // row t is the state after its input, the word before, was read: nothing has read the last word
      const paintRead = (t, name) => {
        const box = detail.first - first + t - 1;
        if (box >= 0) classes[box] = name;
      };
      if (colour === "unit") {
        const part = Elman.partOf(layer),
          unit = Elman.unitOf(detail),
          values = Elman.column(Elman.rows(layer, part), unit);
        const most = Math.max(...values.map(Math.abs), 1),
          signed = Elman.SIGNED.has(part);
        values.forEach((value, t) => {
          paintRead(t, signed ? Elman.signedClass(value, most) : Elman.gateClass(value));
        });
        const label = `unit ${unit} of ${part}, layer ${at + 1}, after reading it`;
        return [classes, signed ? Elman.legends.signed(label, most) : Elman.legends.gate(label)];
      }
      const row = Elman.triangle(model, detail)?.[token - detail.first];
      if (row) {
        const most = Math.max(...row);
        row.forEach((norm, s) => paintRead(s, Elman.normClass(norm / most)));
        return [classes, Elman.legends.norm()];
      }
    }
    return [trace.tokens.map((token) => Elman.bitsClass(token.bits)), Elman.legends.surprisal()];
  }

  function paint() {
    const [classes, legend] = colours(),
      range = dragged || Elman.range(),
      read = readPlace();
    boxes.forEach(function (box, row) {
      const inside = range && box.place >= range[0] && box.place <= range[1];
      const marks = [
        inside && "inside",
        box.place === Elman.state.token && "chosen",
        box.place === read && "read",
      ];
      const name = [box.kind, classes[row], ...marks].filter(Boolean).join(" ");
      if (painted[row] === name) return;
      painted[row] = name;
      box.className = name;
      box.setAttribute("aria-selected", String(Boolean(inside)));
    });
    Elman.byId("legend").replaceChildren(legend);
  }

  /* The place of the word that the step shown has read; -1 in views of no step, and at the first word. */
  const readPlace = () =>
    Elman.views.some((view) => view.step && view.id === Elman.state.view) &&
    Elman.isRecurrent(Elman.card(Elman.state.model))
      ? Elman.state.token - 1
      : -1;

  let current = null,
    readBox = null;
  function choose() {
    const box = boxes[Elman.state.token - first];
    if (!box) return;
    const wasRead = readBox;
    readBox = boxes[readPlace() - first] || null;
    for (const old of [current, wasRead])
      if (old !== box && old !== readBox) old?.removeAttribute("aria-label");
    if (current && current !== box) {
      current.tabIndex = -1;
      current.removeAttribute("aria-current");
    }
    box.tabIndex = 0;
    box.setAttribute("aria-current", "true");
    const spoken = function (one) {
      const token = Elman.focus().tokens[one.place - first],
        name = token.token === "</s>" ? "end of sentence" : token.text || token.token;
      return `${name}, ${Elman.number(token.bits, 1)} bits`;
    };
    readBox?.setAttribute("aria-label", `${spoken(readBox)}, read by the step shown`);
    box.setAttribute("aria-label", `${spoken(box)}${readBox ? ", predicted by the step shown" : ""}`);
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
      unknown: token.unknown ? "not in the vocabulary: read as <unk>" : readAs(token),
    };
  };
  /* Some tokenizers change a word before the model sees it: 300 becomes N, The becomes the. */
  const readAs = (token) =>
    Elman.card(Elman.state.model).unit === "word" && token.text && token.text !== token.token
      ? `read as ${token.token}`
      : "";
  const BEYOND = "The chosen word lies beyond the words whose states this file holds: choose an earlier one.";
  /* What the chosen word is to the views of one step, in which the word before it is marked as well. */
  Elman.stepTold = function (row) {
    if (!row) return [BEYOND];
    const start = Elman.state.token === 0;
    return [
      "The step shown reads ",
      start ? "the start of the text " : "",
      el("span", { class: "read-mark", text: Elman.visible(row.input) }),
      start ? " and predicts " : " (dashed) and predicts ",
      el("b", { class: "chosen-mark", text: Elman.shown(row) }),
      " (framed).",
    ];
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
    const place = `Token ${Elman.state.token + 1} of ${Elman.focus().total}`; // ends of lines are counted
    Elman.say(
      range
        ? `${Elman.count(range[1] - range[0] + 1, "token")} chosen: view 7 tells which units stay on. ` +
            `${place}: ${told.title}.`
        : `${place}: ${told.title}. ${told.lines.join("; ")}.${told.unknown ? ` ${told.unknown}.` : ""}`
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

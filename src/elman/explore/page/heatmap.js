"use strict";
/* View 3: a part of a layer as a heatmap, units down and words across, sorted; the chosen unit as a line. */
(function () {
  const { el } = Elman;
  const SORTS = [
    ["index", "number of the unit"],
    ["mean", "mean over the text"],
    ["variance", "variance over the text"],
    ["similarity", "likeness to the chosen unit"],
  ];
  let body,
    fields,
    sort,
    sized = "";

  function build(panel) {
    fields = Elman.layerFields(["layer", "part", "unit"]);
    sort = Elman.choice("Sorted by", (value) => Elman.set({ sort: value }));
    body = {
      focus: el("div"),
      empty: el("div"),
      drawing: el("div"),
      controls: el("div", { class: "row" }, fields.elements, sort),
      ramp: el("div", { class: "push" }),
      step: el("p", { class: "context" }),
      map: el("div"),
      line: el("div"),
      title: el("h3"),
      note: el("p", { class: "note" }),
    };
    body.controls.append(body.ramp);
    body.drawing.append(body.controls, body.step, body.map, body.note, body.title, body.line);
    body.matrix = Elman.matrix(body.map);
    panel.append(body.focus, body.empty, body.drawing);
  }

  function order(rows, unit, by) {
    const moments = Elman.moments(rows),
      units = moments.map((one) => one.unit);
    if (by === "mean") units.sort((a, b) => moments[b].mean - moments[a].mean);
    if (by === "variance") units.sort((a, b) => moments[b].variance - moments[a].variance);
    if (by === "similarity") {
      const like = Elman.likeness(rows, unit);
      like[unit] = 2;
      units.sort((a, b) => like[b] - like[a]);
      return {
        units,
        told: (other) =>
          `correlation with unit ${unit}: ${Elman.number(other === unit ? 1 : like[other], 2)}`,
      };
    }
    return {
      units,
      told: (other) =>
        `mean ${Elman.number(moments[other].mean)}, deviation ${Elman.number(Math.sqrt(moments[other].variance))}`,
    };
  }

  function update() {
    const { model, token } = Elman.state,
      trace = Elman.detail(model);
    Elman.focusSwitch(body.focus);
    const instead = Elman.instead(model, "states or gates");
    body.empty.replaceChildren(...(instead ? [instead] : []));
    body.drawing.hidden = Boolean(instead);
    if (instead) return;
    fields.update(trace);
    sort.update(SORTS, Elman.state.sort);
    const at = Elman.layerOf(trace),
      layer = trace.layers[at],
      part = Elman.partOf(layer),
      unit = Elman.unitOf(trace);
    const rows = Elman.rows(layer, part),
      size = rows[0].length,
      signed = Elman.SIGNED.has(part);
    const most = signed ? Elman.extent(rows) : 1;
    const { units, told } = order(rows, unit, Elman.state.sort),
      table = Elman.table(signed ? "d" : "g");
    const width = Elman.room(body.drawing) - 8,
      column = token - trace.first;
    const key = [
      width,
      model,
      trace.first,
      Elman.data.text,
      Elman.data.policy,
      at,
      part,
      Elman.state.sort,
      Elman.state.sort === "similarity" ? unit : "",
      table[0],
      sized,
    ].join();
    body.ramp.replaceChildren(
      Elman.ramp(
        signed ? "d" : "g",
        signed
          ? [`≤ ${Elman.number(-most, 1)}`, "0", `≥ ${Elman.number(most, 1)}`]
          : ["0 closed", "½", "1 open"],
        Elman.PARTS[part]
      )
    );
    const tokens = trace.tokens;
    body.matrix.draw({
      key,
      columns: rows.length,
      rows: size,
      width,
      rowHeight: Math.max(1.5, Math.min(10, 460 / size)),
      left: 0,
      bottom: 58,
      table,
      level: (row, t) =>
        signed
          ? Elman.signedTable(rows[t][units[row]], most)
          : Math.round(255 * Elman.clamp(rows[t][units[row]], 0, 1)),
      tokens,
      first: trace.first,
      chosen: { row: units.indexOf(unit), column },
      label:
        `${Elman.PARTS[part]} of layer ${at + 1} of ${Elman.name(model)}: ${size} units down, ` +
        `${rows.length} words across. Arrow keys choose unit and word.`,
      hover: (row, t) => [
        `unit ${units[row]} after reading ${Elman.visible(tokens[t].input)}`,
        `${part} = ${Elman.number(rows[t][units[row]], 3)}; next comes ${Elman.shown(tokens[t])}`,
        told(units[row]),
      ],
      pick: (row, t) => Elman.set({ unit: units[row], token: trace.first + t, from: -1, to: -1 }),
      move(down, across) {
        // from where the state is now: keys may come faster than frames
        const next = units[Elman.clamp(units.indexOf(Elman.unitOf(trace)) + down, 0, size - 1)];
        const to = Elman.clamp(Elman.state.token - trace.first + across, 0, rows.length - 1);
        Elman.set({ unit: next, token: trace.first + to, from: -1, to: -1 });
        Elman.say(
          `Unit ${next}, ${part} ${Elman.number(rows[to][next])} after reading ${Elman.visible(tokens[to].input)}`
        );
      },
    });
    body.step.replaceChildren(...Elman.stepTold(trace.tokens[column]));
    body.note.textContent = windowNote(trace);
    body.title.textContent = `Unit ${unit}: ${Elman.PARTS[part]}, layer ${at + 1}`;
    const values = Elman.column(rows, unit);
    Elman.chart(body.line, {
      series: [{ name: part, tint: Elman.tint(Elman.card(model)), values }],
      start: trace.first,
      width,
      height: 190,
      left: 44,
      tokens,
      read: true,
      first: trace.first,
      chosen: column,
      low: signed ? Math.min(-1, ...values) : 0,
      high: Math.max(1, ...values),
      label: `${Elman.PARTS[part]} of unit ${unit} over the words`,
      pick: (t) => Elman.set({ token: trace.first + t, from: -1, to: -1 }),
    });
  }
  /* Which part of a long text is drawn. */
  function windowNote(trace) {
    const count = trace.layers[0].states.h.length;
    return count < trace.total
      ? `Tokens ${trace.first + 1} to ${trace.first + count} of ${Elman.grouped(trace.total)}: ` +
          (Elman.source.typed ? "the window follows the chosen word." : "this file holds no more.")
      : "";
  }
  Elman.windowNote = windowNote;

  Elman.views.push({
    id: "heatmap",
    title: "States and gates",
    inside: true,
    step: true,
    build,
    update,
    on: ["token", "unit", "layer", "part", "sort", "model", "detail", "models"],
    how:
      "one line for each unit, one column for each word read; the colour is the value of the unit after " +
      "it. Where many lines change at the same word, the layer noticed something; long stripes are what " +
      "it holds on to. From the framed column the chosen word was predicted.",
  });
})();

"use strict";
/* View 7: for a range of words, the units that stay on throughout, and where else in the reference text they
   do (after LSTMVis, Strobelt et al. 2018). The server searches; which units stay on the page can tell by
   itself. Not here: the list of places (matches.js). */
(function () {
  const { el } = Elman;
  const SHOWN = 8,
    LISTED = 32;
  let body,
    fields,
    part,
    level,
    from,
    to,
    asked = "",
    all = false, // whether units beyond LISTED are listed too
    answer = null,
    timer = 0;

  function build(panel) {
    fields = Elman.layerFields(["layer"]);
    part = Elman.choice("State", (value) => Elman.set({ part: value }));
    const slider = el("input", {
      type: "range",
      min: 0.05,
      max: 0.95,
      step: 0.05,
      oninput: () => Elman.set({ threshold: Number(slider.value) }),
    });
    level = el("label", { class: "field" }, el("span"), slider);
    level.update = (value) => {
      slider.value = value;
      level.firstChild.textContent = `Counts as on from |value| ≥ ${Elman.number(value)}`;
    };
    from = Elman.whole("From token", (value) => ends(value - 1, Elman.state.to));
    to = Elman.whole("to token", (value) => ends(Elman.state.from, value - 1));
    body = {
      focus: el("div"),
      empty: el("div"),
      drawing: el("div"),
      range: el("p", { class: "context" }),
      chart: el("div"),
      title: el("h3"),
      units: el("div", { class: "chips" }),
      found: el("h3", { text: "Where else they stay on" }),
    };
    body.places = Elman.places();
    body.drawing.append(
      el("div", { class: "row" }, from, to, fields.elements, part, level),
      body.range,
      body.chart,
      body.title,
      body.units,
      body.found,
      body.places.element
    );
    panel.append(body.focus, body.empty, body.drawing);
  }
  function ends(low, high) {
    const first = low < 0 ? high : low,
      last = high < 0 ? low : high;
    Elman.set({ from: Math.min(first, last), to: Math.max(first, last), token: Math.min(first, last) });
  }

  /* Units at or above the threshold with one sign at every word of the range; those off just outside come
     first. */
  function staysOn(rows, low, high, threshold) {
    const found = [];
    for (let unit = 0; unit < rows[0].length; unit++) {
      const sign = Math.sign(rows[low][unit]);
      let on = sign !== 0,
        sum = 0;
      for (let t = low; t <= high && on; t++) {
        on = rows[t][unit] * sign >= threshold;
        sum += rows[t][unit] * sign;
      }
      if (!on) continue;
      const off = (t) => t < 0 || t >= rows.length || rows[t][unit] * sign < threshold;
      found.push({
        unit,
        sign,
        mean: (sign * sum) / (high - low + 1),
        edges: Number(off(low - 1)) + Number(off(high + 1)),
      });
    }
    return found.sort((a, b) => b.edges - a.edges || Math.abs(b.mean) - Math.abs(a.mean));
  }

  function update() {
    const { model, token, threshold } = Elman.state,
      trace = Elman.detail(model);
    Elman.focusSwitch(body.focus);
    const instead = Elman.instead(model, "units");
    body.empty.replaceChildren(...(instead ? [instead] : []));
    body.drawing.hidden = Boolean(instead);
    if (instead) return;
    fields.update(trace);
    level.update(threshold);
    const range = Elman.range(),
      at = Elman.layerOf(trace),
      { states } = trace.layers[at];
    const which = states[Elman.state.part] ? Elman.state.part : "h",
      rows = states[which].slice(1); // after each word has been read; the first comes before any
    part.update(
      Object.keys(states)
        .sort()
        .reverse()
        .map((name) => [name, Elman.PARTS[name]]),
      which
    );
    from.update(range ? range[0] + 1 : token + 1, 1, trace.total);
    to.update(range ? range[1] + 1 : token + 1, 1, trace.total);
    const low = range ? range[0] - trace.first : -1,
      end = trace.first + rows.length === trace.total - 1; // nothing reads the last word of the text
    const high = range ? Math.min(range[1] - trace.first, end ? rows.length - 1 : Infinity) : -1;
    const inside = range && low >= 0 && low <= high && high < rows.length;
    if (!inside) {
      body.range.textContent = range
        ? low > high
          ? "Nothing reads the last token of a text: choose one before it."
          : "The range is longer than the window of states."
        : "Drag over words above, or press shift and an arrow key, to choose a range.";
      for (const one of [body.chart, body.units]) one.replaceChildren();
      [body.title.textContent, body.found.hidden, body.places.element.hidden] = ["", true, true];
      return;
    }
    const words = trace.tokens
      .slice(low, high + 1)
      .map(Elman.shown)
      .join(" ");
    body.range.replaceChildren(
      trace.tokens
        .slice(Math.max(0, low - 6), low)
        .map(Elman.shown)
        .join(" "),
      " ",
      el("mark", { text: words }),
      " ",
      trace.tokens
        .slice(high + 1, high + 7)
        .map(Elman.shown)
        .join(" ")
    );
    const local = staysOn(rows, low, high, threshold),
      question = {
        text: Elman.data.text,
        model,
        state: Elman.data.policy,
        layer: at + 1,
        part: which,
        first: range[0],
        last: range[1] + 1,
        threshold,
      };
    const key = JSON.stringify(question);
    if (key !== asked) all = false;
    const mine = answer && answer.key === key ? answer : null;
    const units = mine && mine.found ? mine.found.units : local;
    const common = (mine && mine.found && mine.found.common) || 0;
    draw(trace, which, rows, units, { low, high, threshold, token, common });
    body.found.hidden = body.places.element.hidden = false;
    if (key !== asked) {
      asked = key;
      answer = null;
      clearTimeout(timer);
      timer = setTimeout(() => ask(question, key), Elman.source.typed ? 350 : 0);
    }
    body.places.update(mine, trace.tokens.slice(low, high + 1));
  }

  function draw(trace, which, rows, units, { low, high, threshold, token, common }) {
    const top = units.slice(0, SHOWN),
      tint = Elman.tint(Elman.card(Elman.state.model));
    const own = Elman.state.unit,
      chosen = top.some((one) => one.unit === own);
    const series = top.map(({ unit }) => ({
      name: `unit ${unit}`,
      tint,
      values: Elman.column(rows, unit),
      thin: true,
      dim: chosen && unit !== own,
    }));
    const extreme = Math.max(1, ...series.flatMap((one) => one.values.map(Math.abs)));
    if (series.length)
      Elman.chart(body.chart, {
        series,
        start: trace.first,
        width: Elman.room(body.drawing),
        height: 250,
        left: 44,
        tokens: trace.tokens.slice(0, rows.length),
        first: trace.first,
        chosen: token - trace.first,
        band: [low, high],
        levels: [threshold, -threshold],
        low: -extreme,
        high: extreme,
        label: `${Elman.PARTS[which]} of the ${top.length} strongest units that stay on over the range`,
        pick: (t) => Elman.set({ token: trace.first + t }),
      });
    else body.chart.replaceChildren();
    const told = [`${Elman.count(units.length, "unit")} of ${rows[0].length} stay on`];
    if (units.length > SHOWN) told.push(`the first ${SHOWN} are drawn`);
    if (common) told.push(`${common} more are on most of the time anyway`);
    body.title.textContent = units.length
      ? told.join("; ")
      : "No unit stays on over the whole range: lower the threshold or shorten the range.";
    const listed = all ? units.length : LISTED;
    body.units.replaceChildren(
      ...units
        .slice(0, listed)
        .map(({ unit, sign, mean }) =>
          el("button", {
            type: "button",
            "aria-pressed": String(unit === own),
            class: sign > 0 ? "plus" : "minus",
            text: `${unit}  ${mean > 0 ? "+" : ""}${Elman.number(mean)}`,
            "aria-label": `unit ${unit}, mean ${Elman.number(mean)}`,
            onclick: () => Elman.set({ unit: unit === own ? -1 : unit }),
            onpointerenter: () => bring(unit),
            onpointerleave: () => bring(null),
          })
        ),
      ...(units.length > listed
        ? [
            el("button", {
              type: "button",
              class: "more",
              text: `${units.length - listed} more`,
              onclick: () => {
                all = true;
                Elman.refresh("unit");
              },
            }),
          ]
        : [])
    );
  }

  /* Bring the line of one unit forward while the pointer is on its button. */
  function bring(unit) {
    const lines = [...body.chart.querySelectorAll("path[data-name]")];
    const known = lines.some((one) => one.dataset.name === `unit ${unit}`);
    for (const one of lines) one.classList.toggle("behind", known && one.dataset.name !== `unit ${unit}`);
  }

  async function ask(question, key) {
    if (question.model !== Elman.state.model || question.text !== Elman.data.text) {
      if (key === asked) asked = ""; // whoever comes back to it asks anew
      return;
    }
    let next;
    try {
      next = { key, found: await Elman.source.similar(question) };
    } catch (error) {
      if (error.name === "AbortError") return;
      next = { key, error };
    }
    if (key !== asked) return;
    answer = next;
    Elman.refresh("similar");
  }
  Elman.views.push({
    id: "memory",
    title: "Staying on",
    inside: true,
    build,
    update,
    on: [
      ...["token", "from", "to", "unit", "layer", "part", "threshold"],
      ...["model", "detail", "models", "similar", "hide"],
    ],
    how:
      "choose a few words: the lines are the units that hold one sign, beyond the dashed threshold, " +
      "after each of them. If the places found in the other text have something in common with yours, " +
      "that may be what these units keep.",
  });
})();

"use strict";
/* A line chart in SVG: linear or logarithmic height, a line for each series, a tip at the nearest place, its
   numbers as a table for those who cannot see it. Not here: heatmaps (matrix.js), the conveyor
   (conveyor.js). */
(function () {
  const { el, svg } = Elman;

  /* Round numbers between low and high, at most about `most`. */
  Elman.ticks = function (low, high, most) {
    const rough = (high - low) / Math.max(most, 1),
      power = 10 ** Math.floor(Math.log10(rough || 1));
    const step = [1, 2, 5, 10].find((times) => times * power >= rough) * power;
    const found = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step)
      found.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    return found;
  };
  function powers(low, high) {
    const first = Math.floor(Math.log10(low)),
      last = Math.ceil(Math.log10(high)),
      every = Math.ceil((last - first) / 6);
    const found = [];
    for (let power = first; power <= last; power += every || 1) found.push(10 ** power);
    return found;
  }

  /* told: series [{name, tint, values, dash, dim, wide}], start (x of the first value), log, x and y
     (titles), width, height, tokens (words under the places), first, chosen (place), band [from, to], level
     (a dashed height), low and high (else from the values), pick(place), label. */
  Elman.chart = function (host, told) {
    const { series, log, width, height } = told;
    const left = told.left || 52,
      bottom = told.tokens ? 62 : 40,
      top = 10;
    const wideRoom = width - left - 8,
      tall = height - bottom - top;
    const count = Math.max(...series.map((one) => one.values.length));
    const wide = wideRoom / (told.tokens ? count : Math.max(count - 1, 1));
    const x = (place) => left + (told.tokens ? place + 0.5 : place) * wide;
    const usable = series
      .flatMap((one) => one.values)
      .filter((value) => Number.isFinite(value) && (!log || value > 0));
    let low = told.low ?? Math.min(...usable),
      high = told.high ?? Math.max(...usable);
    if (!(high > low)) {
      high = log ? low * 10 || 1 : low + 1;
    }
    const marks = log ? powers(low, high) : Elman.ticks(low, high, 5);
    if (log) [low, high] = [Math.min(low, marks[0]), Math.max(high, marks[marks.length - 1])];
    const part = (value) =>
      log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    const y = (value) => top + tall * (1 - part(value));

    const root = svg("svg", {
      class: "chart",
      width,
      height,
      role: "img",
      "aria-label": told.label,
      viewBox: `0 0 ${width} ${height}`,
    });
    if (told.band)
      root.append(
        svg("rect", {
          class: "band",
          x: left + told.band[0] * wide,
          y: top,
          width: (told.band[1] - told.band[0] + 1) * wide,
          height: tall,
        })
      );
    for (const mark of marks) {
      const text = log ? `10${Elman.superscript(Math.round(Math.log10(mark)))}` : Elman.small(mark);
      root.append(
        svg("line", {
          class: mark === 0 && !log ? "grid zero" : "grid",
          x1: left,
          x2: width - 8,
          y1: y(mark),
          y2: y(mark),
        }),
        svg("text", { class: "tick", x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, text)
      );
    }
    for (const level of told.levels || [])
      root.append(svg("line", { class: "level", x1: left, x2: width - 8, y1: y(level), y2: y(level) }));
    if (told.chosen >= 0 && told.chosen < count)
      root.append(
        svg("line", { class: "chosen-line", x1: x(told.chosen), x2: x(told.chosen), y1: top, y2: top + tall })
      );
    for (const one of series) {
      let path = "",
        pen = false;
      one.values.forEach(function (value, place) {
        const drawn = Number.isFinite(value) && (!log || value > 0);
        if (drawn)
          path += `${pen ? "L" : "M"}${x(place).toFixed(1)} ${y(Elman.clamp(value, low, high)).toFixed(1)}`;
        pen = drawn;
      });
      root.append(
        svg("path", {
          d: path,
          "data-name": one.name,
          class: `line ${one.tint || ""}${one.dim ? " dim" : ""}${one.thin ? " thin" : ""}`,
          "stroke-dasharray": one.dash,
        })
      );
    }
    if (told.tokens)
      root.append(
        Elman.wordsUnder(told.tokens, {
          left,
          wide,
          chosen: told.first + told.chosen,
          height: top + tall + 12,
          first: told.first,
          read: told.read,
        })
      );
    else
      for (const tick of Elman.ticks(told.start, told.start + count - 1, Math.min(10, wideRoom / 45)))
        if (Number.isInteger(tick))
          root.append(
            svg(
              "text",
              { class: "tick", x: x(tick - told.start), y: top + tall + 15, "text-anchor": "middle" },
              String(tick)
            )
          );
    if (told.x)
      root.append(
        svg(
          "text",
          { class: "title", x: left + wideRoom / 2, y: height - 4, "text-anchor": "middle" },
          told.x
        )
      );
    if (told.y)
      root.append(
        svg(
          "text",
          {
            class: "title",
            x: 12,
            y: top + tall / 2,
            transform: `rotate(-90 12 ${top + tall / 2})`,
            "text-anchor": "middle",
          },
          told.y
        )
      );

    const cursor = svg("line", { class: "cursor", y1: top, y2: top + tall, visibility: "hidden" });
    root.append(cursor);
    const placeOf = (event) => {
      const box = root.getBoundingClientRect(),
        at = (event.clientX - box.left - left) / wide;
      return Elman.clamp(told.tokens ? Math.floor(at) : Math.round(at), 0, count - 1);
    };
    root.addEventListener("pointermove", function (event) {
      const place = placeOf(event);
      cursor.setAttribute("x1", x(place));
      cursor.setAttribute("x2", x(place));
      cursor.setAttribute("visibility", "visible");
      const title = told.read
        ? `after reading ${Elman.visible(told.tokens[place].input)}`
        : told.tokens
          ? `${Elman.shown(told.tokens[place])} (token ${told.first + place + 1})`
          : `${told.placeName || told.x} ${told.start + place}`;
      const lines = series
        .filter((one) => !one.dim && Number.isFinite(one.values[place]))
        .slice(0, 12)
        .map((one) => `${one.name}: ${Elman.small(one.values[place])}`);
      Elman.tip(event.clientX, event.clientY, [title, ...lines]);
    });
    root.addEventListener("pointerleave", () => {
      cursor.setAttribute("visibility", "hidden");
      Elman.tip();
    });
    if (told.pick) {
      root.classList.add("pickable");
      root.addEventListener("click", (event) => told.pick(placeOf(event)));
    }
    host.replaceChildren(root);
  };

  /* Names of the series of a chart, with the look of their lines. */
  Elman.key = function (series) {
    return el(
      "ul",
      { class: "key-list" },
      series.map((one) =>
        el(
          "li",
          {},
          svg(
            "svg",
            { width: 26, height: 10, "aria-hidden": "true" },
            svg("line", {
              class: `line ${one.tint}`,
              x1: 0,
              x2: 26,
              y1: 5,
              y2: 5,
              "stroke-dasharray": one.dash,
            })
          ),
          one.name
        )
      )
    );
  };

  /* Numbers as a table, folded away: the other way to read a picture. rows() is called when it is opened. */
  Elman.numbers = function (host, caption, head, rows) {
    const opened = host.querySelector("details")?.open;
    const details = el("details", { class: "numbers" }, el("summary", { text: "The numbers as a table" }));
    details.addEventListener("toggle", function () {
      if (details.open && !details.querySelector("table"))
        details.append(Elman.sheet(caption, head, rows(), caption));
    });
    if (opened) details.open = true;
    host.replaceChildren(details);
  };
})();

"use strict";
/* The gradient's norm against the lag: its median over the words of a text, as curves, as the lags at which
   it has fallen, as a table. Not here: the triangles (gradients.js). */
(function () {
  const { el } = Elman;
  const ENOUGH = 4; // rows behind a median

  /* Median over t of |∂L_t/∂·_{t−k}| for each lag k, as far as enough rows reach; zeros (a reset
     lies between, or a relu is shut) are left out. */
  function medians(rows) {
    const found = [];
    for (let lag = 0; lag <= rows.length - ENOUGH; lag++) {
      const values = rows
        .slice(lag)
        .map((row, k) => row[k])
        .filter((value) => value > 0)
        .sort((a, b) => a - b);
      if (values.length < ENOUGH) break;
      found.push(
        values.length % 2
          ? values[(values.length - 1) / 2]
          : Math.sqrt(values[values.length / 2 - 1] * values[values.length / 2])
      );
    }
    return found;
  }
  const firstBelow = (curve, part) => curve.findIndex((value) => value < curve[0] * part);

  /* Fill host.key, curve, facts and numbers from list: [{id, rows: the triangle}…]. */
  Elman.decay = function (host, list, width) {
    const seen = new Map();
    const series = list
      .map(function ({ id, rows }) {
        const tint = Elman.tint(Elman.card(id)),
          again = seen.get(tint) || 0,
          curve = medians(rows);
        seen.set(tint, again + 1);
        return {
          id,
          name: Elman.name(id),
          tint,
          dash: [null, "6 4", "2 3"][again],
          curve,
          values: Elman.state.scale === "relative" ? curve.map((value) => value / curve[0]) : curve,
        };
      })
      .filter((one) => one.curve.length > 1);
    if (!series.length) {
      host.key.replaceChildren();
      host.curve.replaceChildren(
        el("p", { class: "note", text: "The text is too short for a curve: it needs a dozen words." })
      );
      host.facts.replaceChildren();
      return;
    }
    host.key.replaceChildren(Elman.key(series));
    Elman.chart(host.curve, {
      series,
      start: 0,
      log: true,
      width,
      height: 280,
      x: "lag: words back",
      placeName: "lag",
      y: "median norm",
      left: 58,
      label: `Median gradient norm against lag: ${series.map((one) => one.name).join(", ")}. Numbers: table below.`,
    });
    const words = (curve, part) => {
      const at = firstBelow(curve, part);
      return at < 0 ? `more than ${curve.length - 1}` : String(at);
    };
    host.facts.replaceChildren(
      Elman.sheet(
        "Words until the norm has fallen",
        ["model", "a half", "a tenth", "a hundredth", "a thousandth"],
        series.map(({ id, curve }) => [
          Elman.label(id),
          ...[0.5, 0.1, 0.01, 0.001].map((part) => words(curve, part)),
        ]),
        "Words back until the median norm has fallen, from lag 0, below …"
      )
    );
    Elman.numbers(
      host.numbers,
      "Median gradient norm at each lag",
      ["lag", ...series.map((one) => one.name)],
      () =>
        Array.from({ length: Math.max(...series.map((one) => one.curve.length)) }, (_, lag) => [
          String(lag),
          ...series.map((one) => Elman.small(one.curve[lag])),
        ])
    );
  };
})();

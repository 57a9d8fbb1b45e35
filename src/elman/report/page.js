"use strict";
(function () {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const figures = new Map();

  function coloured(value) {            // "var(--x)" → the colour that the style sheet gives it now
    if (typeof value === "string") {
      const name = /^var\((--[a-z-]+)\)$/.exec(value);
      return name ? getComputedStyle(document.documentElement).getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
    return value;
  }

  function fitted(layout, width, names) {   // the plot keeps its height whatever rows the legend takes
    if (width < 520) layout.font.size = 12;
    layout.height = 350 + 20 * Math.ceil(names / Math.max(1, Math.floor(width / 190)));
    return layout;
  }

  function draw(plot) {
    const figure = coloured(figures.get(plot)[plot.dataset.shown || 0]);
    Plotly.react(plot, figure.data, fitted(figure.layout, plot.clientWidth, figure.data.length),
      { displayModeBar: false, responsive: true });
  }

  for (const plot of document.querySelectorAll(".plot")) {
    figures.set(plot, JSON.parse(document.getElementById(plot.dataset.figures).textContent));
    draw(plot);
  }
  for (const button of document.querySelectorAll(".switch button"))
    button.addEventListener("click", function () {
      for (const other of button.parentElement.children)
        other.setAttribute("aria-pressed", String(other === button));
      const plot = document.getElementById(button.dataset.plot);
      plot.dataset.shown = button.dataset.figure;
      draw(plot);
    });
  function redraw() { for (const plot of figures.keys()) draw(plot); }
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", redraw);

  document.getElementById("download").addEventListener("click", function () {
    const blob = new Blob([document.getElementById("comparison").textContent], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "comparison.json";
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  });
})();

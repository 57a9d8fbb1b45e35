"use strict";
/* A matrix drawn on a canvas: one colour for each cell, words under the columns, a cross at the chosen cell,
   the pointer and the arrow keys. Both the heatmaps and the gradient triangles are such matrices. Not here:
   what the cells mean (heatmap.js, gradients.js). */
(function () {
  const { el, svg } = Elman;

  /* host: an element of its own. `told` has
       columns, rows     how many
       level(row, column)  0…255 in the table, or −1 for an empty cell
       table             256 packed pixels (Elman.table)
       width, rowHeight  in CSS pixels
       left, bottom      room for the labels beside and below
       beside            the names of the rows, where there is room for them (or none)
       tokens, first     the words under the columns (or none)
       chosen            {row, column}, −1 for none; rowLabel(row) names a row
       label             what a screen reader says the canvas is
       hover(row, column) → lines of the tip;  pick(row, column);  move(rows, columns) on arrow keys */
  Elman.matrix = function (host) {
    const canvas = el("canvas", { tabindex: 0, role: "application", "aria-roledescription": "heatmap" });
    const under = svg("svg", { class: "axis", "aria-hidden": "true" });
    const beside = svg("svg", { class: "axis beside", "aria-hidden": "true" });
    const buffer = document.createElement("canvas");
    let told = null,
      over = null;
    host.classList.add("matrix");
    host.replaceChildren(beside, canvas, under);

    function paint() {
      // from the numbers to the buffer: once for each change of the numbers
      const { columns, rows, level, table } = told;
      buffer.width = columns;
      buffer.height = rows;
      const context = buffer.getContext("2d"),
        image = context.createImageData(columns, rows);
      const pixels = new Uint32Array(image.data.buffer);
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++) {
          const at = level(row, column);
          if (at >= 0) pixels[row * columns + column] = table[at];
        }
      context.putImageData(image, 0, 0);
    }
    function show() {
      // from the buffer to the page, with the cross
      const { columns, rows, width, rowHeight, left, chosen } = told;
      const scale = window.devicePixelRatio || 1,
        height = rows * rowHeight;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      canvas.style.marginLeft = `${left}px`;
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(buffer, 0, 0, canvas.width, canvas.height);
      context.lineWidth = scale;
      const wide = canvas.width / columns,
        tall = canvas.height / rows;
      for (const [place, colour] of [
        [over, Elman.css("--soft")],
        [chosen, Elman.css("--ink")],
      ]) {
        if (!place) continue;
        context.strokeStyle = colour;
        if (place.column >= 0)
          context.strokeRect(place.column * wide - 0.5, 0.5, wide + 1, canvas.height - 1);
        if (place.row >= 0) context.strokeRect(0.5, place.row * tall - 0.5, canvas.width - 1, tall + 1);
      }
    }
    function label() {
      const { tokens, first, columns, width, left, bottom, chosen } = told;
      under.replaceChildren();
      under.setAttribute("width", left + width);
      under.setAttribute("height", bottom);
      if (tokens)
        under.append(
          Elman.wordsUnder(tokens, {
            left,
            wide: width / columns,
            chosen: first + chosen.column,
            height: 12,
            first,
            read: true,
          })
        );
    }
    /* The names of the rows, thinned as those of the columns are; the chosen one is always there. */
    function names() {
      const { rows, rowHeight, left, chosen } = told,
        every = Math.max(1, Math.ceil(13 / rowHeight));
      beside.replaceChildren();
      beside.setAttribute("width", left);
      beside.setAttribute("height", told.beside ? rows * rowHeight : 0);
      (told.beside || []).forEach(function (name, row) {
        if (row !== chosen.row && (row % every || Math.abs(row - chosen.row) < every)) return;
        const text = name.length > 9 ? `${name.slice(0, 8)}…` : name;
        beside.append(
          svg(
            "text",
            {
              x: left - 5,
              y: (row + 0.5) * rowHeight + 4,
              "text-anchor": "end",
              class: row === chosen.row ? "chosen" : null,
            },
            text
          )
        );
      });
    }
    function cell(event) {
      const place = canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - place.left) / place.width) * told.columns);
      const row = Math.floor(((event.clientY - place.top) / place.height) * told.rows);
      if (column < 0 || row < 0 || column >= told.columns || row >= told.rows) return null;
      return { row, column };
    }
    let waiting = null;
    canvas.addEventListener("pointermove", function (event) {
      if (waiting) {
        waiting = event;
        return;
      }
      waiting = event;
      requestAnimationFrame(function () {
        // at most one redraw a frame, however fast the pointer sends
        const at = waiting && cell(waiting),
          last = waiting;
        waiting = null;
        if (!at || (over && at.row === over.row && at.column === over.column)) return;
        over = at;
        show();
        const lines = told.hover(at.row, at.column);
        Elman.tip(last.clientX, last.clientY, lines);
      });
    });
    canvas.addEventListener("pointerleave", () => {
      over = null;
      waiting = null;
      if (told) show();
      Elman.tip();
    });
    canvas.addEventListener("click", function (event) {
      const at = cell(event);
      if (at) told.pick(at.row, at.column);
    });
    canvas.addEventListener("keydown", function (event) {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      told.move(...step);
    });
    return {
      draw(next) {
        const numbers = !told || next.key !== told.key; // the same key: only the cross has moved
        told = next;
        over = null;
        canvas.setAttribute("aria-label", next.label);
        if (numbers) paint();
        show();
        label();
        names();
      },
      element: host,
    };
  };

  /* The bar that explains the colours of a matrix: ends and middle labelled. */
  Elman.ramp = function (scale, ticks, label) {
    const canvas = el("canvas", { width: 256, height: 1, class: "ramp", "aria-hidden": "true" });
    const context = canvas.getContext("2d"),
      image = context.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(Elman.table(scale));
    context.putImageData(image, 0, 0);
    return el(
      "div",
      { class: "ramp-box" },
      el("span", { class: "scale-label", text: label }),
      el(
        "div",
        {},
        canvas,
        el(
          "div",
          { class: "ramp-ticks" },
          ticks.map((tick) => el("span", { text: tick }))
        )
      )
    );
  };
})();

"use strict";
/* Choosing in the strip: a click or the arrows choose a word, a mouse drag or shift and arrows a range,
   Enter opens the next-word view; the tip tells of the word under the pointer. Not here: drawing the strip
   (strip.js). */
(function () {
  const { element, first, boxes, box: boxAt } = Elman.strip;
  let drag = null;

  const lastPlace = () => first() + boxes().length - 1;

  function move(index, extend) {
    const to = Elman.clamp(index, first(), lastPlace());
    if (extend) {
      const { token, from } = Elman.state,
        range = Elman.range();
      const anchor =
        range && (token === range[0] || token === range[1])
          ? token === range[0]
            ? range[1]
            : range[0]
          : token;
      Elman.set({ from: Math.min(anchor, to), to: Math.max(anchor, to), token: to });
    } else Elman.set({ token: to, from: -1, to: -1 });
  }
  Elman.moveToken = move;

  /* The word above or below: the one whose middle is nearest on the next line of the strip. */
  function vertical(step) {
    const all = boxes(),
      here = boxAt(Elman.state.token).getBoundingClientRect(),
      middle = here.left + here.width / 2;
    let row = Elman.state.token - first() + step,
      line = null,
      best = null;
    for (; row >= 0 && row < all.length; row += step) {
      const place = all[row].getBoundingClientRect();
      if (Math.abs(place.top - here.top) < 4) continue;
      if (line === null) line = place.top;
      if (Math.abs(place.top - line) > 4) break;
      const distance = Math.abs(place.left + place.width / 2 - middle);
      if (best === null || distance < best.distance) best = { distance, row };
    }
    return best ? first() + best.row : Elman.state.token;
  }

  function press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !boxes().length) return;
    const { token } = Elman.state;
    const to = {
      ArrowRight: () => token + 1,
      ArrowLeft: () => token - 1,
      ArrowDown: () => vertical(1),
      ArrowUp: () => vertical(-1),
      Home: first,
      End: lastPlace,
    }[event.key];
    if (to) move(to(), event.shiftKey);
    else if (event.key === "Enter" || event.key === " ") Elman.set({ view: "nextword" });
    else return;
    event.preventDefault();
  }
  element.addEventListener("keydown", press);
  /* Arrows and Enter pressed while nothing has the focus: the chosen word takes it, and acts. */
  Elman.strip.enter = function (event) {
    const box = boxAt(Elman.state.token);
    if (!box) return;
    box.focus();
    press(event);
  };

  const boxOf = (event) => event.target.closest?.(".word");
  element.addEventListener("pointerdown", function (event) {
    const box = boxOf(event);
    if (!box || event.button) return;
    drag = {
      from: box.place,
      moved: false,
      range: null,
      touch: event.pointerType === "touch",
      extend: event.shiftKey,
    };
    if (!drag.touch) event.preventDefault();
  });
  element.addEventListener("pointerover", function (event) {
    const box = boxOf(event);
    if (!box || !boxes().length) {
      Elman.tip();
      return;
    }
    if (drag && !drag.touch && box.place !== drag.from) drag.moved = true;
    if (drag && drag.moved) {
      drag.range = [Math.min(drag.from, box.place), Math.max(drag.from, box.place)];
      Elman.strip.drag(drag.range);
      return;
    }
    const place = box.getBoundingClientRect(),
      told = Elman.describe(box.place);
    Elman.tip(
      place.left + place.width / 2,
      place.bottom - 8,
      [told.title, ...told.lines, told.unknown].filter(Boolean)
    );
  });
  element.addEventListener("pointerleave", () => Elman.tip());
  addEventListener("pointerup", function (event) {
    if (!drag) return;
    const { range, from, moved, extend } = drag;
    drag = null;
    Elman.strip.drag(null);
    const box = boxAt(from);
    if (moved && range) {
      Elman.set({ from: range[0], to: range[1], token: range[0] });
      box?.focus({ preventScroll: true });
      return;
    }
    if (boxOf(event) !== box) return;
    box.focus({ preventScroll: true });
    if (extend) {
      move(from, true);
      return;
    }
    Elman.set({
      token: from,
      from: -1,
      to: -1,
      ...(Elman.state.view === "surprisal" ? { view: "nextword" } : {}),
    });
  });
  addEventListener("pointercancel", () => {
    drag = null;
    Elman.strip.drag(null);
  });
})();

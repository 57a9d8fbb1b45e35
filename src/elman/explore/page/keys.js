"use strict";
/* Keys that work everywhere on the page, and the dialog that lists them. Keys of the strip: selection.js. */
(function () {
  const { el, byId, state } = Elman;
  const KEYS = [
    ["1 … 7", "the views"],
    ["← → ↑ ↓", "move over the words, or in a picture that has the focus"],
    ["Shift + arrows", "choose a range of words"],
    ["Enter", "what was expected at this word"],
    ["Home, End", "first and last word"],
    ["Esc", "drop the range"],
    ["[ and ]", "unit before, unit after"],
    [", and .", "step of the cell back, forward"],
    ["m", "next model that the view can show"],
    ["/", "type a text"],
    ["Ctrl + Enter", "read the typed text"],
    ["?", "these keys"],
  ];
  let single = true;

  const dialog = byId("keys");
  dialog.append(
    el("h2", { id: "keys-title", text: "Keys" }),
    el(
      "dl",
      {},
      KEYS.map(([key, what]) => [el("dt", {}, el("kbd", { text: key })), el("dd", { text: what })])
    ),
    el(
      "label",
      {},
      el("input", {
        type: "checkbox",
        checked: true,
        onchange: (event) => {
          single = event.target.checked;
        },
      }),
      " single keys work everywhere on the page"
    ),
    el("form", { method: "dialog" }, el("button", { class: "primary", text: "Close" }))
  );
  byId("show-keys").addEventListener("click", () => dialog.showModal());
  addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open || event.defaultPrevented) return;
    if (event.key === "Escape") {
      Elman.set({ from: -1, to: -1 });
      Elman.tip();
      return;
    }
    const idle = [null, document.body, byId("text-card")].includes(document.activeElement);
    const selected = String(getSelection()) !== ""; // shift and an arrow extend it
    if (idle && !selected && (event.key.startsWith("Arrow") || event.key === "Enter")) {
      Elman.strip.enter(event);
      return;
    }
    if (!single || event.target.closest("input:not([type=checkbox], [type=range]), textarea, select")) return;
    const digit = Number(event.key),
      view = digit >= 1 ? Elman.views[digit - 1] : null;
    if (view) Elman.set({ view: view.id });
    else if (event.key === "?") dialog.showModal();
    else if (event.key === "/" && Elman.source.typed) byId("text").focus();
    else if (event.key === "," || event.key === ".") Elman.stepCell(event.key === "." ? 1 : -1);
    else if (event.key === "[" || event.key === "]") nextUnit(event.key === "]" ? 1 : -1);
    else if (event.key === "m") nextModel();
    else return;
    event.preventDefault();
  });
  function nextUnit(by) {
    const trace = Elman.detail(state.model);
    if (!trace) return;
    const size = trace.layers[0].states.h[0].length,
      unit = (Elman.unitOf(trace) + by + size) % size;
    Elman.set({ unit });
    Elman.say(`Unit ${unit}`);
  }
  function nextModel() {
    const inside = Elman.views.some((view) => view.inside && view.id === state.view);
    const ids = Elman.shownModels().filter((id) => !inside || Elman.isRecurrent(Elman.card(id))),
      id = ids[(ids.indexOf(state.model) + 1) % ids.length];
    if (!id) return;
    Elman.set({ token: Elman.tokenIn(id, state.token), from: -1, to: -1, unit: -1, model: id });
  }
})();

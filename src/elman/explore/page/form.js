"use strict";
/* Text and models: the form at the top of the page. Not here: reading what was chosen (app.js). */
(function () {
  const { el, byId, state } = Elman;

  Elman.currentText = () =>
    (Elman.data.presets.find((one) => one.id === state.preset) || { text: state.text }).text;

  Elman.usePreset = function (preset, andView) {
    const patch = {
      preset: preset.id,
      text: "",
      token: preset.token || 0,
      from: -1,
      to: -1,
      unit: preset.unit ?? -1,
    };
    if (preset.range) Object.assign(patch, { from: preset.range[0], to: preset.range[1] - 1 });
    if (andView && preset.view && Elman.views.some((one) => one.id === preset.view)) patch.view = preset.view;
    Elman.set(patch);
  };

  Elman.buildForm = function (read) {
    const choose = byId("preset"),
      { presets } = Elman.data,
      typed = Elman.source.typed;
    choose.replaceChildren(
      ...(typed ? [el("option", { value: "", text: "Your own text" })] : []),
      ...presets.map((one) => el("option", { value: one.id, text: one.title }))
    );
    choose.addEventListener("change", function () {
      const preset = presets.find((one) => one.id === choose.value);
      if (preset) Elman.usePreset(preset, false);
      else {
        Elman.set({ preset: "", text: byId("text").value });
        byId("text").focus();
      }
    });
    byId("typed").hidden = byId("state-field").hidden = !typed;
    byId("text").addEventListener("input", () => checkLength(false));
    byId("text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
    });
    byId("ask").addEventListener("submit", function (event) {
      event.preventDefault();
      Elman.showError(null);
      if (!checkLength(true)) return;
      const text = byId("text").value,
        preset = presets.find((one) => one.text === text);
      const patch = { preset: preset ? preset.id : "", text: preset ? "" : text, from: -1, to: -1 };
      if (text === Elman.currentText()) read();
      else Elman.set({ ...patch, token: 0 });
    });
    byId("policy").addEventListener("change", () => Elman.set({ state: byId("policy").value }));
    for (const card of Elman.data.cards.values())
      byId("models").append(
        el(
          "label",
          { title: told(card) },
          el("input", { type: "checkbox", value: card.id, onchange: chooseModels }),
          el("span", { class: `dot ${Elman.tint(card)}` }),
          card.name
        )
      );
  };
  const told = (card) =>
    [
      card.cell ? `${card.cell.toUpperCase()} ${card.num_layers}×${card.hidden_size}` : card.kind,
      `${Elman.grouped(card.vocabulary)} tokens`,
      `${Elman.grouped(card.parameters)} parameters`,
    ].join(", ");
  function chooseModels() {
    const ids = [...byId("models").querySelectorAll("input:checked")].map((box) => box.value);
    if (ids.length) Elman.set({ models: ids });
    else {
      Elman.showError(new Elman.Problem({ cause: "At least one model stays chosen." }));
      Elman.showForm();
    }
  }
  /* How long the typed text is, said beside the button once it is long; false where it is too long to read.
     Characters are code points, as the server counts them. */
  function checkLength(sent) {
    const text = byId("text").value,
      most = Elman.data.limits.characters || Infinity,
      count = [...text].length,
      over = count > most;
    const counted = `${Elman.grouped(count)} of at most ${Elman.grouped(most)} characters`;
    const tooLong = `${counted}: ${sent ? "nothing was read. Shorten" : "shorten"} the text by ${Elman.grouped(count - most)}.`;
    const shown = over ? tooLong : count > most / 2 ? `${counted}.` : "";
    if (byId("text-count").textContent !== shown) byId("text-count").textContent = shown;
    byId("text-count").classList.toggle("over", over);
    if (over) byId("text").setAttribute("aria-invalid", "true");
    else byId("text").removeAttribute("aria-invalid");
    if (over && sent) byId("text").focus();
    return !over;
  }
  function showText(text) {
    byId("text").value = text;
    checkLength(false);
    byId("text").rows = Elman.clamp(text.split("\n").length, 2, 6);
  }
  Elman.showForm = function () {
    byId("preset").value = state.preset;
    byId("policy").value = state.state;
    if (document.activeElement !== byId("text")) showText(Elman.currentText());
    for (const box of byId("models").querySelectorAll("input"))
      box.checked = state.models.includes(box.value);
    const preset = Elman.data.presets.find((one) => one.id === state.preset);
    byId("text-note").textContent = [
      preset && preset.note,
      Elman.source.typed ? "" : "A saved page: its texts can be chosen, not typed.",
    ]
      .filter(Boolean)
      .join(" ");
  };
})();

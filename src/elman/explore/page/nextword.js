"use strict";
/* View 2: what each model expected at the chosen word, side by side, the word that came marked with its
   rank. */
(function () {
  const { el } = Elman;
  let body;

  function build(panel) {
    body = {
      where: el("p", { class: "context" }),
      steps: el("div", { class: "row" }),
      grid: el("div", { class: "distributions" }),
    };
    body.steps.append(
      el("button", {
        type: "button",
        id: "word-before",
        text: "‹ word before",
        onclick: () => Elman.moveToken(Elman.state.token - 1),
      }),
      el("button", {
        type: "button",
        id: "word-after",
        text: "word after ›",
        onclick: () => Elman.moveToken(Elman.state.token + 1),
      })
    );
    panel.append(body.where, body.steps, body.grid);
  }

  function update() {
    const focus = Elman.focus();
    if (!focus) return;
    const row = Elman.state.token - focus.first,
      token = focus.tokens[row];
    const before = focus.tokens
      .slice(Math.max(0, row - 14), row)
      .map(Elman.shown)
      .join(" ");
    body.where.replaceChildren(
      row > 14 ? "… " : "",
      before ? `${before} ` : "⏎ ",
      el("mark", { text: Elman.shown(token) })
    );
    const shown = Elman.shownModels()
      .map((id) => [id, Elman.tokenAt(id, Elman.tokenIn(id, Elman.state.token))])
      .filter(([, own]) => own);
    const most = Math.max(...shown.map(([, own]) => own.top[0][1]));
    body.grid.replaceChildren(...shown.map(([id, own]) => distribution(id, own, most)));
  }

  function distribution(id, own, most) {
    const card = Elman.card(id),
      actual = 2 ** -own.bits,
      name = own.unknown ? "<unk>" : own.token;
    const rows = own.top.map(([word, probability], k) =>
      bar(word, probability, most, word === name, k + 1)
    );
    if (!own.top.some(([word]) => word === name))
      rows.push(
        el("li", { class: "more", "aria-hidden": "true", text: "⋮" }),
        bar(name, actual, most, true, own.rank)
      );
    const covered = own.top.reduce((sum, [, probability]) => sum + probability, 0);
    return el(
      "section",
      { class: "distribution", "aria-label": card.name },
      el("h3", {}, Elman.label(id)),
      el("p", {
        class: "note",
        text:
          `${Elman.number(own.bits, 2)} bits · rank ${Elman.grouped(own.rank)} of ${Elman.grouped(card.vocabulary)}` +
          (own.unknown ? " · unknown word" : ""),
      }),
      el("ol", { class: `bars ${Elman.tint(card)}` }, rows),
      el("p", { class: "note", text: tail(card, own, covered) })
    );
  }
  function tail(card, own, covered) {
    const rest = `${Elman.percent(Math.max(1 - covered, 0))} lie on all other words.`;
    if (own.matched === undefined || own.matched === null) return rest;
    const found =
      own.matched > 1
        ? `The longest word sequence in its table that ends here has ${own.matched} words.`
        : "Its table has no sequence that ends here: it backed off to the single word.";
    return `${found} ${rest}`;
  }
  function bar(word, probability, most, actual, rank) {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${(100 * probability) / most}%`;
    return el(
      "li",
      { class: actual ? "actual" : null },
      el("span", { class: "rank", text: rank > 9999 ? `${(rank / 1000).toFixed(0)}k` : String(rank) }),
      el("span", { class: "name", text: Elman.visible(word), title: word }),
      el("span", { class: "track", "aria-hidden": "true" }, fill),
      el("span", { class: "value", text: Elman.percent(probability) }),
      actual ? el("span", { class: "hidden", text: "the word that came" }) : null
    );
  }

  Elman.views.push({
    id: "nextword",
    title: "Next word",
    build,
    update,
    on: ["token", "model", "models"],
    how:
      "each list is what the model expected before it saw the marked word, best guess first; the framed" +
      " row is the word that came, with its rank. Bars of all models have one scale.",
  });
})();

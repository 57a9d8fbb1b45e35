"use strict";
/* The places of the reference text in which the units of a range stay on, as a list of lines; those that only
   repeat the chosen words can be hidden. Not here: asking for them (memory.js). */
(function () {
  const { el } = Elman;

  /* {element, update(answer, chosen)}: the list; answer is null while it is on its way, else {found} or {error};
     chosen are the tokens of the range. */
  Elman.places = function () {
    const status = el("p", { class: "note", role: "status" }),
      list = el("ol", { class: "matches" }),
      box = el("input", {
        type: "checkbox",
        id: "hide-same",
        onchange: () => Elman.set({ hide: Number(box.checked) }),
      }),
      hide = el("label", { class: "check" }, box, "hide places with the same words"),
      how = el("p", {
        class: "note",
        text: "Highlighted in each place is the stretch over which that share of these units is on together.",
      });
    return {
      element: el("div", {}, status, hide, how, list),
      update(answer, chosen) {
        box.checked = Elman.state.hide === 1;
        const found = answer?.found?.matches || [],
          words = chosen.map((token) => (token.unknown ? "<unk>" : token.token)),
          shown = box.checked ? found.filter((match) => !same(match, words)) : found;
        hide.hidden = how.hidden = !found.length;
        status.textContent = told(answer, found.length, found.length - shown.length);
        list.replaceChildren(...shown.map(line));
      },
    };
  };

  /* Whether a place only repeats the chosen words: it holds them all in their order, or is a part of them. */
  function same({ tokens, from, to }, words) {
    const place = tokens.slice(from, to),
      [short, long] = place.length < words.length ? [place, words] : [words, place];
    return long.some((_, start) => short.every((word, k) => word === long[start + k]));
  }

  function told(answer, count, hidden) {
    if (!answer) return "Searching the reference text …";
    const { error } = answer;
    if (error) return [error.cause, error.reason, error.remedy].filter(Boolean).join(" ");
    const { reference } = Elman.data,
      name = reference ? ` in ${reference.name} (${Elman.grouped(reference.tokens)} tokens)` : "";
    if (!count) return `No other place found${name}.`;
    return (
      `${Elman.count(count, "place")}${name} where these units stay on; the score is the share that do.` +
      (hidden ? ` ${hidden} of them with the same words ${hidden === 1 ? "is" : "are"} hidden.` : "")
    );
  }

  /* A match between the words before and after it. */
  function line({ score, start, end, tokens, from, to }) {
    const words = (low, high) => tokens.slice(low, high).map(Elman.visible).join(" ");
    const title = `tokens ${start} to ${end} of the reference text`;
    return el(
      "li",
      { title },
      el("span", { class: "score", text: Elman.number(score) }),
      el(
        "span",
        { class: "found" },
        el("span", { class: "left" }, el("bdi", { text: words(0, from) })),
        " ",
        el("mark", { text: words(from, to) }),
        " ",
        el("span", { class: "right", text: words(to) })
      )
    );
  }
})();

"use strict";
/* The page put together: reading, tabs, link, errors. Not here: the views, text and models (form.js),
   keys.js. */
(function () {
  const { el, byId, state } = Elman;
  const panels = new Map();
  let reading = false;

  Elman.showError = function (error) {
    const box = byId("error");
    if (!error) {
      box.replaceChildren();
      return;
    }
    const told =
      error instanceof Elman.Problem
        ? error
        : { cause: "The page failed.", reason: String(error.message || error), remedy: "Reload it." };
    box.replaceChildren(
      el(
        "div",
        { class: "problem" },
        el("strong", { text: told.cause }),
        told.reason ? el("p", { text: `Likely reason: ${told.reason}` }) : null,
        told.remedy ? el("p", { text: `Remedy: ${told.remedy}` }) : null,
        el("button", { type: "button", text: "Dismiss", onclick: () => Elman.showError(null) })
      )
    );
  };

  async function read() {
    const text = Elman.currentText();
    Elman.showError(null); // an old error does not stand beside what comes next
    if (!text.trim()) {
      Elman.showError(
        new Elman.Problem({
          cause: "There is no text to read.",
          remedy: "Type a sentence, or choose a text.",
        })
      );
      return;
    }
    if (!state.models.length) {
      Elman.showError(new Elman.Problem({ cause: "No model is chosen.", remedy: "Tick a model." }));
      return;
    }
    byId("strip").setAttribute("aria-busy", "true");
    document.body.classList.add("reading");
    reading = true;
    try {
      const ids = await Elman.read(text, state.models, state.state);
      if (ids === null) return;
      settle(ids);
    } catch (error) {
      if (error.name !== "AbortError") Elman.showError(error);
      else return;
    }
    reading = false;
    byId("strip").removeAttribute("aria-busy");
    document.body.classList.remove("reading");
    Elman.refresh("read");
  }
  /* Bring the choices within what was read. */
  function settle(ids) {
    // the model looked into: where none is named one with gates, which there is most to see of
    if (!ids.includes(state.model))
      state.model = ids.find(Elman.hasGates) || ids.find((id) => Elman.isRecurrent(Elman.card(id))) || ids[0];
    const trace = Elman.focus(),
      last = trace.first + trace.tokens.length - 1;
    state.token = Elman.clamp(state.token, trace.first, last);
    if (state.from > last || state.to > last || state.from < trace.first) state.from = state.to = -1;
  }

  function tabs() {
    Elman.views.forEach(function (view, k) {
      const tab = el(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${view.id}`,
          "aria-controls": `panel-${view.id}`,
          onclick: () => Elman.set({ view: view.id }),
        },
        el("span", { class: "digit", text: String(k + 1) }),
        view.title
      );
      const presets = Elman.data.presets.filter((one) => one.view === view.id);
      const panel = el(
        "section",
        {
          role: "tabpanel",
          id: `panel-${view.id}`,
          class: "card",
          "aria-labelledby": `tab-${view.id}`,
          hidden: true,
        },
        el(
          "p",
          { class: "how" },
          el("b", { text: "How to read this: " }),
          view.how,
          presets.map((one) =>
            el("button", {
              type: "button",
              class: "preset",
              title: one.note || "",
              text: `Show it: ${one.title}`,
              onclick: () => Elman.usePreset(one, true),
            })
          )
        )
      );
      byId("tabs").append(tab);
      byId("panels").append(panel);
      panels.set(view.id, { view, tab, panel, built: false });
    });
    byId("tabs").addEventListener("keydown", function (event) {
      const ids = [...panels.keys()],
        at = ids.indexOf(state.view);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: ids.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const id = ids[(to + ids.length) % ids.length];
      Elman.set({ view: id });
      panels.get(id).tab.focus();
    });
  }
  function showView(changed) {
    for (const [id, { tab, panel }] of panels) {
      const on = id === state.view;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      panel.hidden = !on;
    }
    const shown = panels.get(state.view);
    if (changed.has("view") && byId("tabs").scrollWidth > byId("tabs").clientWidth)
      byId("tabs").scrollLeft = shown.tab.offsetLeft - byId("tabs").offsetLeft - 40;
    if (!shown.built) {
      shown.view.build(shown.panel);
      shown.built = true;
    }
    const due = ["view", "read", "theme", "size", ...shown.view.on].some((name) => changed.has(name));
    if (due && Elman.focus()) shown.view.update();
  }

  async function copyLink() {
    Elman.writeLink();
    const button = byId("copy-link");
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy it from the address bar";
    } // the browser may forbid it
    setTimeout(() => {
      button.textContent = "Copy link";
    }, 2500);
  }

  function adopt(found) {
    // a state from a link, brought within what there is
    const { cards, presets } = Elman.data,
      all = [...cards.keys()];
    const models = (found.models || []).filter((id) => cards.has(id));
    if (!models.length) {
      // three that can be looked into, and an n-gram (of several the longest is usually given last) or another
      const recurrent = all.filter((id) => Elman.isRecurrent(cards.get(id)));
      const others = all.filter((id) => !recurrent.includes(id));
      const ngrams = others.filter((id) => cards.get(id).kind === "ngram");
      models.push(...recurrent.slice(0, 3), ...(ngrams.length ? ngrams : others).slice(-1));
    }
    const known = presets.some((one) => one.id === found.preset);
    Object.assign(state, Elman.defaults(), found, { models, preset: known ? found.preset : "" });
    if (!panels.has(state.view)) state.view = Elman.views[0].id;
    if (!state.preset && !state.text && presets.length) {
      const first = presets[0];
      Object.assign(
        state,
        { preset: first.id },
        found.token === undefined ? { token: first.token || 0 } : {}
      );
    }
  }

  Elman.onChange(function (changed) {
    if (["text", "preset", "models", "state"].some((name) => changed.has(name))) {
      Elman.showForm();
      read();
    }
    if (reading && !changed.has("read")) {
      showView(new Set([...changed].filter((name) => name === "view")));
      return;
    }
    Elman.drawStrip(changed);
    showView(changed);
  });

  async function start() {
    byId("copy-link").addEventListener("click", copyLink);
    if (Elman.source.typed)
      byId("copy-link").title =
        "The address of what is shown now. It works in this browser while this server runs. Start it with " +
        "--port 8123 each time and the address stays; open the one that it prints first.";
    try {
      await Elman.loadModels();
    } catch (error) {
      Elman.showError(error);
      return;
    }
    tabs();
    Elman.buildForm(read);
    adopt(Elman.parse(location.hash));
    Elman.showForm();
    showView(new Set(["view"]));
    byId("foot").textContent = Elman.data.reference
      ? `Reference text: ${Elman.data.reference.name}, ${Elman.count(Elman.data.reference.tokens, "token")}. ` +
        "This page loads nothing from elsewhere."
      : "This page loads nothing from elsewhere.";
    addEventListener("hashchange", function () {
      const found = Elman.arrived();
      if (!found) return;
      adopt(found);
      Elman.showForm();
      Elman.refresh("view");
      read();
    });
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width) {
        width = innerWidth;
        Elman.refresh("size");
      }
    });
    await read();
  }
  start();
})();

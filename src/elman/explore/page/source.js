"use strict";
/* Where data comes from: the server of `elman explore`, or the document inside a static page. Same promises.
   Not here: what is kept between calls and how tokens of two models are matched (traces.js). */
(function () {
  class Problem extends Error {
    // what a reader can mend: cause, reason, remedy
    constructor({ cause, reason, remedy }) {
      super(cause);
      Object.assign(this, { cause, reason: reason || "", remedy: remedy || "" });
    }
  }
  Elman.Problem = Problem;

  const STATUS = {
    401: {
      cause: "The server does not know this page.",
      reason: "The start link carries a secret that is not in this tab.",
      remedy: "Open the link that `elman explore` printed when it started.",
    },
    413: { cause: "The text is too long for the server.", remedy: "Shorten it." },
    429: {
      cause: "The server has too many requests waiting.",
      remedy: "Wait a few seconds and press Read again.",
    },
    504: { cause: "The model did not finish in time.", remedy: "Shorten the text, or choose fewer models." },
  };

  class Live {
    constructor() {
      this.typed = true;
      this.aborts = new Map();
    }

    async ask(path, body, lane) {
      const stop = new AbortController(); // a newer question of the same kind makes the older one moot
      if (lane) {
        this.aborts.get(lane)?.abort();
        this.aborts.set(lane, stop);
      }
      const options = {
        signal: stop.signal,
        headers: { Accept: "application/json" },
        credentials: "same-origin",
      };
      if (body) {
        Object.assign(options, { method: "POST", body: JSON.stringify(body) });
        options.headers["Content-Type"] = "application/json";
      }
      let response;
      try {
        response = await fetch(path, options);
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Problem({
          cause: "The server cannot be reached.",
          reason: "`elman explore` was stopped, or its address changed.",
          remedy: "Start it again and open the link that it prints.",
        });
      }
      if (response.ok) return response.json();
      const told = await response.json().catch(() => ({}));
      const known = STATUS[response.status] || {
        cause: `The server answered with status ${response.status}.`,
      };
      throw new Problem(told.error && told.error.cause ? told.error : known);
    }
    models() {
      return this.ask("api/models");
    }
    async read(text, models, state) {
      return (await this.ask("api/read", { text, models, state }, "read")).traces;
    }
    trace(text, model, state, first, last) {
      return this.ask("api/trace", { text, model, state, first, last });
    }
    similar(question) {
      return this.ask("api/similar", question, "similar");
    }
  }

  class Static {
    constructor(document_) {
      this.document = document_;
      this.typed = false;
    }

    find(text) {
      const found = this.document.texts.find((item) => item.text === text || item.id === text);
      if (found) return found;
      throw new Problem({
        cause: "This text is not in this file.",
        reason: "The page was saved with a few texts and runs no model.",
        remedy: "Choose one of its texts, or run `elman explore` to type your own.",
      });
    }
    async models() {
      const { models, presets, texts } = this.document;
      const listed = texts.map((item) => {
        const preset = (presets || []).find((other) => other.text === item.text) || {};
        return { ...preset, ...item, traces: undefined };
      });
      return { models, presets: listed, reference: null, limits: { characters: 0, detail: 200, top: 10 } };
    }
    async read(text, models) {
      const { traces } = this.find(text);
      const there = Object.fromEntries(models.filter((id) => traces[id]).map((id) => [id, traces[id]]));
      if (Object.keys(there).length) return there;
      throw new Problem({
        cause: "No chosen model has read this text.",
        remedy: "Choose another model or text.",
      });
    }
    async trace(text, model) {
      const found = this.find(text).traces[model]; // with states and gates of its first tokens
      return found.layers.length
        ? { ...found, tokens: found.tokens.slice(0, found.layers[0].states.h.length) }
        : found;
    }
    async similar({ text, model, layer, part, first, last }) {
      const stored = (this.find(text).similar || {})[model] || []; // a list for each model
      const found = stored.find(
        (item) => item.layer === layer && item.part === part && item.first === first && item.last === last
      );
      if (found) return found;
      throw new Problem({
        cause: "This file holds no reference text to search.",
        reason: "A saved page has states of its own texts only.",
        remedy: "Run `elman explore` with the model to search its corpus.",
      });
    }
  }

  const inside = Elman.byId("explore-data");
  Elman.source = inside ? new Static(JSON.parse(inside.textContent)) : new Live();
})();

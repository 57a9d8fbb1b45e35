"use strict";
/* What has been read: traces of the current text, windows with gates and gradients, tokens of two models
   matched by their place in the text. Not here: how it is fetched (source.js). */
(function () {
  const data = (Elman.data = {
    cards: new Map(),
    presets: [],
    reference: null,
    limits: {},
    traces: {},
    text: null,
  });
  let windows = new Map(); // "m0" → trace with gates and gradients
  let pending = new Map();
  let failed = new Map();
  let aligned = new Map();
  let generation = 0; // answers to an older text are dropped

  Elman.loadModels = async function () {
    const told = await Elman.source.models();
    data.cards = new Map(told.models.map((card) => [card.id, card]));
    if (told.state) Elman.setDefault("state", told.state); // what the program was started with
    Object.assign(data, {
      presets: told.presets || [],
      reference: told.reference,
      limits: told.limits || {},
    });
  };

  /* Read a text with models; returns the ids that answered. */
  Elman.read = async function (text, ids, policy) {
    const mine = ++generation;
    const traces = await Elman.source.read(text, ids, policy);
    if (mine !== generation) return null;
    data.traces = traces;
    data.text = text;
    data.policy = policy;
    [windows, pending, failed, aligned] = [new Map(), new Map(), new Map(), new Map()];
    return Object.keys(traces);
  };

  Elman.card = (id) => data.cards.get(id);
  Elman.name = (id) => (data.cards.get(id) || { name: id }).name;
  Elman.shownModels = () => Elman.state.models.filter((id) => data.traces[id]);
  Elman.focus = () => data.traces[Elman.state.model];
  Elman.tokenAt = function (id, index) {
    const trace = data.traces[id];
    return trace ? trace.tokens[index - trace.first] : undefined;
  };
  Elman.isRecurrent = (card) => Boolean(card && card.kind === "recurrent" && card.cell);
  Elman.hasGates = (id) => Elman.isRecurrent(Elman.card(id)) && /^(lstm|gru)$/.test(Elman.card(id).cell);

  const WHY = {
    ngram:
      "counts word sequences: it looks its last few words up in a table, so it has no state, no gates and nothing " +
      "for a gradient to flow back through",
    feedforward:
      "sees a fixed window of words, each time afresh: it has no state that runs on from word to word",
    mixture: "adds up the probabilities of several models and has no state of its own",
    streaming:
      "has its weights rounded for use and keeps no gates or gradients; open the model that it was made from",
  };
  Elman.whyNot = (card) => `${card.name} ${WHY[card.kind] || "has no recurrence to look into"}.`;

  /* The trace of a window around the chosen token, with gates and gradients. Null while it is on its way (the
     change "detail" tells when it is there) or where there is none. */
  Elman.detail = function (id) {
    const card = data.cards.get(id),
      trace = data.traces[id];
    if (!trace || !Elman.isRecurrent(card)) return null;
    const [low, high] = needed(id, trace),
      kept = windows.get(id);
    const inside = (place) =>
      kept && place >= kept.first && place < kept.first + kept.layers[0].states.h.length;
    if (
      kept &&
      (!Elman.source.typed || (inside(low) && inside(high)))
    )
      return kept;
    if (!pending.has(id) && !failed.has(id)) fetchWindow(id, trace, low, high);
    return null;
  };
  /* The first and last row that the views draw: the chosen token's; the range's too, and the one after it, where
     a window holds them all. A range that is too long must not be asked for again and again. */
  function needed(id, trace) {
    const token = Elman.tokenIn(id, Elman.state.token),
      range = id === Elman.state.model ? Elman.range() : null;
    if (!range) return [token, token];
    const low = Math.min(token, range[0]),
      high = Math.max(token, Math.min(range[1] + 1, trace.first + trace.tokens.length - 1));
    return high - low < (data.limits.detail || 200) ? [low, high] : [token, token];
  }
  function fetchWindow(id, trace, low, high) {
    const most = data.limits.detail || 200,
      total = trace.first + trace.tokens.length;
    const middle = Math.round((low + high) / 2);
    const first =
      total <= most ? trace.first : Elman.clamp(middle - Math.floor(most / 2), trace.first, total - most);
    const last = Math.min(first + most, total),
      mine = generation;
    pending.set(id, true);
    Elman.source
      .trace(data.text, id, data.policy, first, last)
      .then((found) => {
        if (mine !== generation) return;
        pending.delete(id);
        if (!found.layers.length)
          failed.set(
            id,
            new Elman.Problem({
              cause: `${Elman.name(id)} has no states in this trace.`,
              reason: "It was saved without gates.",
              remedy: "Trace it again with gates.",
            })
          );
        else windows.set(id, found);
        Elman.refresh("detail");
      })
      .catch((error) => {
        if (mine !== generation) return;
        pending.delete(id);
        failed.set(id, error);
        Elman.showError(error);
        Elman.refresh("detail");
      });
  }
  Elman.detailFailed = (id) => failed.get(id);

  /* For each token of model `a` the tokens of model `b` that cover the same characters, and whether exactly
     those. */
  Elman.align = function (a, b) {
    const key = `${a}|${b}`;
    if (aligned.has(key)) return aligned.get(key);
    const left = data.traces[a].tokens,
      right = data.traces[b].tokens,
      found = [];
    const passed = (other, token) =>
      other.line < token.line ||
      (other.line === token.line &&
        (ends(other) ? other.sentence < token.sentence : other.end <= token.start));
    let begin = 0;
    for (const token of left) {
      while (begin < right.length && passed(right[begin], token)) begin++;
      const rows = [];
      for (let row = begin; row < right.length && right[row].line === token.line; row++) {
        const other = right[row];
        if (ends(other) && ends(token) && other.sentence === token.sentence) rows.push(row);
        if (other.sentence > token.sentence || (ends(other) && ends(token))) break;
        if (ends(other) || ends(token)) continue;
        if (other.start >= token.end) break;
        if (other.end > token.start) rows.push(row);
      }
      const exact =
        rows.length > 0 &&
        right[rows[0]].start === token.start &&
        right[rows[rows.length - 1]].end === token.end;
      found.push({ rows, exact });
    }
    aligned.set(key, found);
    return found;
  };
  const ends = (token) => token.token === "</s>";

  /* The model that the one in focus is compared with: the chosen one, else the first other. */
  Elman.versus = function () {
    const ids = Elman.shownModels(),
      { model, versus } = Elman.state;
    return ids.includes(versus) && versus !== model ? versus : ids.find((id) => id !== model);
  };
  /* The place, among the tokens of model `id`, of a token of the model in focus. */
  Elman.tokenIn = function (id, index) {
    const focus = Elman.focus(),
      trace = data.traces[id];
    if (!focus || !trace || id === Elman.state.model) return index;
    const match = Elman.align(Elman.state.model, id)[index - focus.first];
    return match && match.rows.length
      ? trace.first + match.rows[0]
      : Elman.clamp(index, trace.first, trace.first + trace.tokens.length - 1);
  };
  /* Bits that `b` spends more than `a` on each token of `a`; null where their tokens do not match. */
  Elman.gaps = function (a, b) {
    const right = data.traces[b].tokens;
    return Elman.align(a, b).map(({ rows, exact }, row) =>
      !exact
        ? null
        : data.traces[a].tokens[row].bits - rows.reduce((sum, place) => sum + right[place].bits, 0)
    );
  };

  /* The layer, part and unit that are looked at, brought within what the model in focus has. */
  Elman.PARTS = {
    h: "hidden state h",
    c: "cell state c",
    i: "input gate i",
    f: "forget gate f",
    g: "candidate g",
    o: "output gate o",
    r: "reset gate r",
    z: "update gate z",
    n: "candidate n",
  };
  Elman.SIGNED = new Set(["h", "c", "g", "n"]);
  Elman.partsOf = (layer) => [...Object.keys(layer.states).sort().reverse(), ...Object.keys(layer.gates)];
  Elman.rows = (layer, part) => layer.states[part] || layer.gates[part]; // [T][H]
  Elman.layerOf = (trace) => Elman.clamp(Elman.state.layer, 0, trace.layers.length - 1);
  Elman.partOf = function (layer) {
    const parts = Elman.partsOf(layer);
    return parts.includes(Elman.state.part) ? Elman.state.part : parts[0];
  };
  /* The part whose gradient is meant: by default what a model carries from word to word. */
  Elman.normOf = (id) => {
    const { norm } = Elman.state;
    if (norm !== "memory") return norm;
    return Elman.card(id).cell === "lstm" ? "c" : "h";
  };
  /* Its norms, row t with t + 1 numbers; null where the trace has none. */
  Elman.triangle = function (id, trace) {
    const found = trace.gradients,
      part = Elman.normOf(id);
    if (!found || part === "x") return found && found.x;
    return found.layers[Elman.clamp(Elman.state.layer, 0, found.layers.length - 1)][part];
  };
  Elman.memoryOf = (layer) => (layer.states.c ? "c" : "h"); // what is carried from step to step

  /* Mean and variance of each unit over time: [{unit, mean, variance}] of rows [T][H]. */
  Elman.moments = function (rows) {
    const count = rows.length,
      size = rows[0].length,
      found = [];
    for (let unit = 0; unit < size; unit++) {
      let sum = 0,
        squares = 0;
      for (let t = 0; t < count; t++) {
        sum += rows[t][unit];
        squares += rows[t][unit] * rows[t][unit];
      }
      const mean = sum / count;
      found.push({ unit, mean, variance: Math.max(squares / count - mean * mean, 0) });
    }
    return found;
  };
  /* The unit looked at; where none is chosen, the one whose output varies most over this text. */
  Elman.unitOf = function (trace) {
    const rows = trace.layers[Elman.layerOf(trace)].states.h;
    const { unit } = Elman.state;
    if (Number.isInteger(unit) && unit >= 0 && unit < rows[0].length) return unit;
    return Elman.moments(rows).reduce((best, one) => (one.variance > best.variance ? one : best)).unit;
  };
  /* Correlation over time of every unit with the chosen one. */
  Elman.likeness = function (rows, unit) {
    const moments = Elman.moments(rows),
      own = moments[unit];
    return moments.map(function (other) {
      let sum = 0;
      for (const row of rows) sum += (row[unit] - own.mean) * (row[other.unit] - other.mean);
      return sum / rows.length / Math.sqrt(own.variance * other.variance + 1e-18);
    });
  };
  /* Where the colours of a signed part end: nearly all values lie within, a few counters may pass it. */
  Elman.extent = function (rows) {
    const sizes = rows.flatMap((row) => row.map(Math.abs)).sort((a, b) => a - b);
    return Math.max(1, sizes[Math.floor(0.98 * (sizes.length - 1))]);
  };
  Elman.column = (rows, unit) => rows.map((row) => row[unit]);
})();

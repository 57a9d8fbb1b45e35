"use strict";
/* The drawings and equations of the cells, as data: wires, gates, nodes and numbers, each with the step in
   which it comes in. Equations and gate names are those of elman.cells. Not here: drawing and stepping
   (cell.js). */
(function () {
  const n3 = (value) => Elman.number(value, 3),
    signed = (value) => (value < 0 ? `(${n3(value)})` : n3(value));

  /* U sums over all units of the old state, W over all of the input: so they are drawn, and no single number of
     the old state flows into a gate. wires: [step, path]; gates: [step, x, y, name, squash]; nodes: [step, x, y, sign];
     numbers: [step, x, y, anchor, key, text before]. Every drawing is 540 × 396. */
  const LSTM = {
    wires: [
      [-1, "M10 60H103"],
      [0, "M127 60H273"],
      [3, "M297 60H530"],
      [-1, "M10 300H375"],
      [-1, "M50 384V300"],
      [0, "M115 300V247"],
      [0, "M115 213V72"],
      [1, "M205 300V247"],
      [1, "M205 213V145H273"],
      [2, "M285 300V247"],
      [2, "M285 213V157"],
      [2, "M285 133V72"],
      [4, "M375 300V247"],
      [4, "M375 213V176H443"],
      [4, "M455 60V92"],
      [4, "M455 122V164"],
      [4, "M455 188V300H530"],
    ],
    gates: [
      [0, 115, 230, "f", "σ"],
      [1, 205, 230, "i", "σ"],
      [2, 285, 230, "g", "tanh"],
      [4, 375, 230, "o", "σ"],
      [4, 455, 107, "", "tanh"],
    ],
    nodes: [
      [-1, 24, 300, "U"],
      [-1, 50, 345, "W"],
      [0, 115, 60, "×"],
      [3, 285, 60, "+"],
      [2, 285, 145, "×"],
      [4, 455, 176, "×"],
    ],
    numbers: [
      [-1, 10, 46, "start", "before", "cₜ₋₁ = "],
      [0, 123, 190, "start", "f", ""],
      [0, 200, 46, "middle", "kept", ""],
      [1, 213, 190, "start", "i", ""],
      [2, 293, 190, "start", "g", ""],
      [2, 293, 112, "start", "written", ""],
      [3, 530, 46, "end", "c", "cₜ = "],
      [4, 383, 200, "start", "o", ""],
      [4, 463, 148, "start", "tanh", ""],
      [4, 530, 324, "end", "h", "hₜ = "],
      [-1, 66, 324, "start", "all", "U sums hₜ₋₁ of "],
      [-1, 66, 384, "start", "x", "xₜ = "],
    ],
    steps: [
      {
        name: "Forget",
        equation: "f = σ(W_f x + U_f h₋ + b_f)",
        numbers: (v) => `f = ${n3(v.f)}`,
        tell: (v) =>
          `${Elman.percent(v.f)} of the old cell is kept: ${n3(v.f)} · ${signed(v.before)} = ${n3(v.kept)}.`,
      },
      {
        name: "Input",
        equation: "i = σ(W_i x + U_i h₋ + b_i)",
        numbers: (v) => `i = ${n3(v.i)}`,
        tell: (v) => `The door for new content is ${Elman.percent(v.i)} open.`,
      },
      {
        name: "Candidate",
        equation: "g = tanh(W_g x + U_g h₋ + b_g)",
        numbers: (v) => `g = ${n3(v.g)}`,
        tell: (v) =>
          `New content ${n3(v.g)}; through the door comes ${n3(v.i)} · ${signed(v.g)} = ${n3(v.written)}.`,
      },
      {
        name: "Cell",
        equation: "c = f·c₋ + i·g",
        numbers: (v) => `c = ${n3(v.kept)} + ${signed(v.written)} = ${n3(v.c)}`,
        tell: (v) =>
          `The cell goes from ${n3(v.before)} to ${n3(v.c)}: a sum, so a gradient comes back through it by f alone.`,
      },
      {
        name: "Output",
        equation: "o = σ(W_o x + U_o h₋ + b_o),  h = o·tanh(c)",
        numbers: (v) => `o = ${n3(v.o)},  h = ${n3(v.o)} · ${signed(v.tanh)} = ${n3(v.h)}`,
        tell: (v) =>
          `${Elman.percent(v.o)} of tanh(c) = ${n3(v.tanh)} is shown to the next layer and the next word.`,
      },
    ],
    values(layer, initial, t, unit) {
      const gates = Object.fromEntries(
        ["i", "f", "g", "o"].map((name) => [name, layer.gates[name][t][unit]])
      );
      const before = initial.c,
        c = layer.states.c[t][unit];
      return {
        ...gates,
        before,
        c,
        kept: gates.f * before,
        written: gates.i * gates.g,
        tanh: Math.tanh(c),
        h: layer.states.h[t][unit],
      };
    },
  };

  const GRU = {
    wires: [
      [-1, "M10 60H138"],
      [2, "M162 60H418"],
      [3, "M442 60H530"],
      [-1, "M40 60V310H430"],
      [-1, "M90 384V310"],
      [2, "M150 310V257"],
      [2, "M150 223V72"],
      [3, "M150 130H268"],
      [3, "M312 130H418"],
      [0, "M270 310V257"],
      [0, "M270 223V195H338"],
      [1, "M350 310V207"],
      [1, "M362 195H408"],
      [1, "M430 310V212"],
      [1, "M430 178V142"],
      [3, "M430 118V72"],
    ],
    gates: [
      [2, 150, 240, "z", "σ"],
      [0, 270, 240, "r", "σ"],
      [1, 430, 195, "n", "tanh"],
      [3, 290, 130, "", "1−"],
    ],
    nodes: [
      [-1, 40, 270, "U"],
      [-1, 90, 350, "W"],
      [2, 150, 60, "×"],
      [3, 430, 60, "+"],
      [3, 430, 130, "×"],
      [1, 350, 195, "×"],
    ],
    numbers: [
      [-1, 10, 46, "start", "before", "hₜ₋₁ = "],
      [-1, 108, 334, "start", "all", "U sums hₜ₋₁ of "],
      [2, 158, 196, "start", "z", ""],
      [2, 290, 46, "middle", "kept", ""],
      [0, 262, 208, "end", "r", ""],
      [1, 460, 190, "start", "n", ""],
      [3, 365, 121, "middle", "rest", ""],
      [3, 440, 100, "start", "written", ""],
      [3, 530, 46, "end", "h", "hₜ = "],
      [-1, 100, 384, "start", "x", "xₜ = "],
    ],
    steps: [
      {
        name: "Reset",
        equation: "r = σ(W_r x + U_r h₋ + b_r)",
        numbers: (v) => `r = ${n3(v.r)}`,
        tell: (v) => `${Elman.percent(v.r)} of what the past has to say may enter the new content.`,
      },
      {
        name: "Candidate",
        equation: "n = tanh(W_n x + r·(U_n h₋ + c_n))",
        numbers: (v) => `n = ${n3(v.n)}`,
        tell: (v) => `New content: ${n3(v.n)}.`,
      },
      {
        name: "Update",
        equation: "z = σ(W_z x + U_z h₋ + b_z)",
        numbers: (v) => `z = ${n3(v.z)}`,
        tell: (v) =>
          `${Elman.percent(v.z)} of the OLD state is kept: ${n3(v.z)} · ${signed(v.before)} = ${n3(v.kept)}.`,
      },
      {
        name: "State",
        equation: "h = (1−z)·n + z·h₋",
        numbers: (v) => `h = ${n3(v.written)} + ${signed(v.kept)} = ${n3(v.h)}`,
        tell: (v) =>
          `The rest, ${n3(v.rest)}, is filled with new content: the state goes from ${n3(v.before)} to ${n3(v.h)}.`,
      },
    ],
    values(layer, initial, t, unit) {
      const [r, z, n] = ["r", "z", "n"].map((name) => layer.gates[name][t][unit]),
        before = initial.h;
      return {
        r,
        z,
        n,
        before,
        kept: z * before,
        rest: 1 - z,
        written: (1 - z) * n,
        h: layer.states.h[t][unit],
      };
    },
  };

  const simple = (squash, inverse) => ({
    wires: [
      [-1, "M10 180H258"],
      [0, "M150 384V180"],
      [1, "M302 180H530"],
    ],
    gates: [[1, 280, 180, "", squash]],
    nodes: [
      [-1, 90, 180, "U"],
      [-1, 150, 300, "W"],
      [0, 150, 180, "+"],
    ],
    numbers: [
      [-1, 10, 138, "start", "all", "U sums hₜ₋₁ of "],
      [-1, 160, 384, "start", "x", "xₜ = "],
      [0, 205, 166, "middle", "a", ""],
      [1, 530, 166, "end", "h", "hₜ = "],
    ],
    steps: [
      {
        name: "Add up",
        equation: "a = W x + b + U h₋ + c",
        numbers: (v) => `a ${v.a}`,
        tell: () =>
          "The word and the whole old state, weighted and added up: nothing of the old value is kept " +
          "as it was.",
      },
      {
        name: "Squash",
        equation: squash === "tanh" ? "h = tanh(a)" : "h = max(0, a)",
        numbers: (v) => `h = ${n3(v.h)}`,
        tell: (v) =>
          squash === "tanh"
            ? `The slope here is 1 − h² ${slope(v.h)}: a gradient on its way back is multiplied by it.`
            : `The slope here is ${v.h > 0 ? 1 : 0}.`,
      },
    ],
    values(layer, _, t, unit) {
      const h = layer.states.h[t][unit];
      return { a: inverse(h), h };
    },
  });
  /* a is not in a trace; it is got back from h, which the page has to three decimals. The nearer to ±1, the
     fewer digits of a that tells: from 0.9985 (a = 3.6) only a bound. A relu at 0 tells that a was not positive. */
  function beforeTanh(h) {
    const size = Math.abs(h);
    if (size >= 0.9985) return h > 0 ? "> 3.5" : "< −3.5";
    return `≈ ${Elman.number(Math.atanh(h), size > 0.98 ? 1 : 2)}`;
  }
  const slope = (h) => (Math.abs(h) >= 0.9985 ? "< 0.003" : `≈ ${Elman.number(1 - h * h)}`);
  Elman.cells = {
    lstm: LSTM,
    gru: GRU,
    rnn: simple("tanh", beforeTanh),
    "rnn-relu": simple("relu", (h) => (h > 0 ? `= ${n3(h)}` : "≤ 0")),
  };
})();

// Every event in every state: what the table says, and what may never be.

import assert from "node:assert/strict";
import { test } from "node:test";

import { START, next } from "../machine.js";

const NAMES = ["idle", "checking", "ok", "suggest", "warn", "blocked", "unknown", "error", "expired"];
const VERDICTS = ["ok", "suggest", "warn", "blocked", "unknown"];
const FLAGS = [true, false];

const STATES = [];
for (const name of NAMES) {
  for (const held of FLAGS) {
    for (const spoken of FLAGS) {
      for (const pass of [0, 1, 2]) STATES.push(Object.freeze({ name, held, spoken, pass }));
    }
  }
}
const EVENTS = [
  { type: "input" },
  { type: "pause" },
  { type: "blur", ask: true },
  { type: "blur", ask: false },
  { type: "ask" },
  { type: "fail" },
  { type: "expire" },
  { type: "submit", hold: true },
  { type: "submit", hold: false },
  { type: "timeup" },
  { type: "anyway" },
];
for (const to of VERDICTS) for (const pass of FLAGS) EVENTS.push({ type: "answer", to, pass });

const label = (state, event) => `${JSON.stringify(state)} × ${JSON.stringify(event)}`;

/** Calls `look` with every pair, and what comes of it. */
const every = (look) => {
  let pairs = 0;
  for (const state of STATES) {
    for (const event of EVENTS) {
      const [after, effects] = next(state, Object.freeze({ ...event }));
      look(state, event, after, effects, label(state, event));
      pairs += 1;
    }
  }
  assert.equal(pairs, 9 * 2 * 2 * 3 * EVENTS.length);
};

/** What becomes of each state name, in the order of `NAMES`, from (not held, not spoken, pass 0). */
const TABLE = {
  input: "idle idle idle idle idle idle idle idle idle",
  pause: "checking checking ok suggest warn blocked unknown error expired",
  "blur ask": "checking checking ok suggest warn blocked unknown error expired",
  blur: "idle checking ok suggest warn blocked unknown error expired",
  ask: "checking checking checking checking checking checking checking checking checking",
  fail: "idle error ok suggest warn blocked unknown error expired",
  expire: "idle checking expired expired expired blocked expired error expired",
  "submit hold": "checking checking ok suggest warn blocked unknown error checking",
  submit: "idle checking ok suggest warn blocked unknown error expired",
  timeup: "idle checking ok suggest warn blocked unknown error expired",
  anyway: "idle checking ok suggest warn blocked unknown error expired",
  "answer ok": "idle ok ok ok ok ok ok ok ok",
  "answer suggest": "idle suggest suggest suggest suggest suggest suggest suggest suggest",
  "answer warn": "idle warn warn warn warn warn warn warn warn",
  "answer blocked": "idle blocked blocked blocked blocked blocked blocked blocked blocked",
  "answer unknown": "idle unknown unknown unknown unknown unknown unknown unknown unknown",
};
/** The effects, likewise; "-" is none. */
const EFFECTS = {
  input: "clear clear clear clear clear clear clear clear clear",
  pause: "ask - - - - - - - -",
  "blur ask": "ask - - - - - - - -",
  blur: "- - - - - - - - -",
  ask: "ask ask ask ask ask ask ask ask ask",
  fail: "- - - - - - - - -",
  expire: "- - - - - - - - -",
  "submit hold": "hold+ask hold - refuse refuse refuse - - hold+ask",
  submit: "- - - refuse refuse refuse - - -",
  timeup: "- - - - - - - - -",
  anyway: "- - - override override - - - -",
};

const eventOf = (row) => {
  const [type, word] = row.split(" ");
  return { type, to: word, ask: word === "ask", hold: word === "hold", pass: false };
};

for (const row of Object.keys(TABLE)) {
  test(`${row}: from each state`, () => {
    const names = TABLE[row].split(" ");
    const effects = (EFFECTS[row] ?? "- - - - - - - - -").split(" ");
    NAMES.forEach((name, at) => {
      const [after, done] = next({ ...START, name }, eventOf(row));
      assert.equal(after.name, names[at], `${name} × ${row}`);
      assert.equal(done.join("+") || "-", effects[at], `${name} × ${row}`);
    });
  });
}

test("nothing is changed in place, and every pair has an answer", () => {
  every((state, event, after, effects, pair) => {
    assert.ok(NAMES.includes(after.name), pair);
    assert.equal(typeof after.held, "boolean", pair);
    assert.ok([0, 1, 2].includes(after.pass), pair);
    assert.ok(Array.isArray(effects), pair);
  });
});

test("a definite no is the only thing that is never sent", () => {
  every((state, event, after, effects, pair) => {
    const sends = effects.includes("send") || (event.type === "submit" && !effects.length);
    if (sends && after.name === "blocked") {
      const excused = after.pass === 2 || event.type === "timeup";
      assert.ok(excused, pair);
    }
  });
});

test("what waits is sent, refused, or taken back by the person: it never stays behind", () => {
  every((state, event, after, effects, pair) => {
    if (!state.held || after.held) return;
    const ended = effects.includes("send") || effects.includes("refuse");
    assert.ok(ended || event.type === "input", pair);
  });
});

test("when the time is up or the request fails, the form goes out", () => {
  for (const type of ["timeup", "fail"]) {
    for (const pass of [0, 1, 2]) {
      const [after, effects] = next({ name: "checking", held: true, spoken: false, pass }, { type });
      assert.deepEqual(effects, ["send"]);
      assert.equal(after.held, false);
    }
  }
});

test("a form is held only while an answer is awaited, and once", () => {
  every((state, event, after, effects, pair) => {
    if (effects.includes("hold")) {
      assert.ok(!state.held && after.held && after.name === "checking", pair);
      assert.ok(event.hold, pair);
    }
    if (event.type === "submit" && state.held) assert.deepEqual(effects, ["stop"], pair);
  });
});

test("a doubtful address goes through at the second press, and says so once", () => {
  for (const name of ["suggest", "warn"]) {
    const seen = [];
    let state = { ...START, name };
    for (let press = 0; press < 3; press += 1) {
      const [after, effects] = next(state, { type: "submit", hold: true });
      seen.push(effects.join());
      state = after;
    }
    assert.deepEqual(seen, ["refuse", "override", ""]);
  }
});

test("'use this address anyway' sends what was refused before, and else only agrees", () => {
  const warned = { ...START, name: "warn", spoken: true };
  assert.deepEqual(next(warned, { type: "anyway" })[1], ["override"]);
  assert.deepEqual(next({ ...warned, pass: 1 }, { type: "anyway" })[1], ["override", "send"]);
});

test("an answer that only informs keeps nobody back", () => {
  for (const to of VERDICTS) {
    const [after, effects] = next(
      { name: "checking", held: true, spoken: false, pass: 0 },
      { type: "answer", to, pass: true },
    );
    assert.deepEqual(effects, ["send"]);
    assert.equal(next(after, { type: "submit", hold: true })[1].length, 0);
  }
});

test("an answer about a value that is gone changes nothing", () => {
  for (const to of VERDICTS) {
    const [after, effects] = next(START, { type: "answer", to, pass: false });
    assert.deepEqual([after, effects], [START, []]);
  }
});

test("typing forgets everything", () => {
  every((state, event, after) => {
    if (event.type === "input") assert.deepEqual(after, START);
  });
});

test("a new no takes an earlier consent back", () => {
  const insisted = { name: "warn", held: false, spoken: true, pass: 2 };
  const [after] = next(insisted, { type: "answer", to: "blocked", pass: false });
  assert.deepEqual(next(after, { type: "submit", hold: true })[1], ["refuse"]);
});

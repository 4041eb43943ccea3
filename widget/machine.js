// What one e-mail field does when something happens to it. Pure: no DOM, no clock, no network.
//
// What it promises: `next` is total (every event in every state has an answer), never changes what
// it is given, and never keeps a form from being sent for any reason but a definite no. The shell
// (gate.js) turns what happens into events and carries the effects out.

/** @typedef {"idle"|"checking"|"ok"|"suggest"|"warn"|"blocked"|"unknown"|"error"|"expired"} Name */
/** @typedef {"ok"|"suggest"|"warn"|"blocked"|"unknown"} Verdict */

/**
 * `held`: a submit waits for the answer. `spoken`: messages may be shown, the person has left the
 * field. `pass`: 0 = a doubtful address is held back once, 1 = it was, 2 = it goes through.
 *
 * @typedef {Readonly<{name: Name, held: boolean, spoken: boolean, pass: 0|1|2}>} State
 */

/**
 * `ask` of blur: the value is worth a request. `hold` of submit: this submit may be made to wait.
 * `pass` of answer: the answer keeps nobody back, it only informs.
 *
 * @typedef {{type: "input"}|{type: "pause"}|{type: "blur", ask: boolean}|{type: "ask"}
 *   |{type: "answer", to: Verdict, pass: boolean}|{type: "fail"}|{type: "expire"}
 *   |{type: "submit", hold: boolean}|{type: "timeup"}|{type: "anyway"}} Event
 */

/**
 * `clear`: forget the answer and stop asking. `ask`: send a request. `hold`: stop this submit and
 * start its clock. `stop`: stop this submit, another one waits already. `refuse`: stop this submit
 * and say why. `send`: send the form now. `override`: the person insists. None for a submit: it
 * goes on.
 *
 * @typedef {"clear"|"ask"|"hold"|"stop"|"refuse"|"send"|"override"} Effect
 */

/** @type {State} */
export const START = { name: "idle", held: false, spoken: false, pass: 0 };

/** @type {(state: State, event: Event) => [State, Effect[]]} */
export const next = (state, event) => {
  const name = state.name;
  const after = /** @type {{-readonly [key in keyof State]: State[key]}} */ ({ ...state });
  /** @type {Effect[]} */
  const effects = [];
  const blocked = name === "blocked";
  const doubtful = name === "suggest" || name === "warn";
  const release = () => {
    if (after.held) effects.push("send");
    after.held = false;
  };
  const refuse = () => {
    after.held = false;
    after.spoken = true;
    if (after.name !== "blocked") after.pass = 1;
    effects.push("refuse");
  };

  switch (event.type) {
    case "input":
      return [START, ["clear"]];
    // @ts-ignore: falls through on purpose
    case "blur":
      after.spoken = true;
      if (!event.ask) break;
    // @ts-ignore
    case "pause":
      if (name !== "idle") break;
    case "ask":
      after.name = "checking";
      effects.push("ask");
      break;
    case "answer":
      if (name === "idle") break; // about a value that is gone
      after.name = event.to;
      if (event.pass) after.pass = 2;
      else if (event.to === "blocked") after.pass = 0;
      if (after.held && after.pass < 2 && !/ok|un/.test(event.to)) refuse();
      else release();
      break;
    case "fail": // of a request made behind the person's back: what was known stays
      if (name !== "checking") break;
      after.name = "error";
    // @ts-ignore
    case "timeup":
      release();
      break;
    case "expire":
      if (doubtful || /ok|un/.test(name)) after.name = "expired";
      break;
    case "submit":
      if (state.held) effects.push("stop");
      else if (state.pass < (blocked ? 2 : doubtful ? 1 : 0)) refuse();
      else if (doubtful && state.pass < 2) {
        after.pass = 2;
        effects.push("override");
      } else if (event.hold && (name === "checking" || name === "idle" || name === "expired")) {
        after.name = "checking";
        after.held = true;
        effects.push("hold");
        if (name !== "checking") effects.push("ask");
      }
      break;
    case "anyway":
      if (!doubtful) break;
      effects.push("override");
      if (state.pass === 1) effects.push("send");
      after.pass = 2;
  }
  return [after, effects];
};

// The widget on one e-mail field: `attach(input, options)`. No dependency, no framework.
//
// What it promises: the form can be sent whatever happens to the gate; nothing but a definite no
// keeps it back. The value is changed by a press on a button of ours only. No innerHTML, eval,
// inline style, cookie or storage. `remove()` undoes everything.
//
// machine.js decides; this file knows the page: it turns what happens into events, carries the
// effects out, and paints the state. The build (gate/widget.py) shortens local names, so write no
// template literals and no `{name}` for `{name: name}` here.
//
// Bugs: needs a browser of 2023 or later (Safari 16.4); in an older one it stays away.

import { START, next } from "./machine.js";
import { ANYWAY, CHECKING, DOUBT, MESSAGES, OK, OTHER, SUGGESTION, UNDO, WHY } from "./messages.js";

/** @typedef {import("./machine.js").State} State */
/** @typedef {import("./machine.js").Event} Happening */
/** @typedef {import("./types").Answer} Answer */
/** @typedef {import("./types").Handle} Handle */
/** @typedef {import("./types").Outcome} Outcome */
/** @typedef {Record<string, any>} Options */

// Milliseconds.
const QUIET = 150; // typing rests so long before the domain is looked up in advance
const SLOW = 700; // before that, "Checking…" would only flicker
const PATIENT = 8000; // an answer that came too early is asked for again with this much time
const AGAIN = 6000; // and, when it was deferred, after this; the next time after four times as long
const TRIES = 3;
const GIVE_UP = 12000;

const BUBBLES = { bubbles: true, composed: true };
const DESCRIBED = "aria-describedby";
const SPARE = 20000; // a token is replaced so long before it expires
const SERVER_LEAST = 50;
const HEADROOM = 0.75; // of the time a submit may be held: for the server; the rest is the way

const CSS =
  ".signup-gate{display:grid;grid:auto/auto 1fr;font-size:.875em;overflow-wrap:anywhere}" +
  ".signup-gate>*{all:unset;grid-column:2;margin-top:.4em}" +
  ".signup-gate b{grid-area:1/1;margin-inline-end:.5em}.signup-gate b,.signup-gate b+button{font-weight:700}" +
  ".signup-gate button{outline:revert;cursor:pointer;text-decoration:underline}";

/** @type {Map<HTMLInputElement, Handle>} */
export const attached = new Map();
let count = 0;
/** The form that is being sent after it was held: nobody holds it twice. @type {unknown} */
let released;

/**
 * The address that was meant, or "". Slips that need nobody to see: suggested when the gate cannot
 * be asked.
 * @param {string} email
 */
export const slip = (email) => {
  const meant = email
    .replace(/@g(mial|mai|amil|mal|nail)\./i, "@gmail.")
    .replace(/(@(gmail|hotmail|yahoo)\.)c(on?|mo?)$/i, "$1com");
  return meant === email ? "" : meant;
};

/**
 * Watch over one e-mail field. Attaching twice gives the first handle.
 *
 * @param {HTMLInputElement} input
 * @param {Options} [options] the attributes of the README, named as in `dataset`
 * @param {Options} [fallback] what neither input nor form say: the script tag's attributes
 * @returns {Handle}
 */
export const attach = (input, options = {}, fallback = {}) => {
  const earlier = attached.get(input);
  if (earlier) return earlier;

  /** @type {(key: string, otherwise?: any) => any} */
  const opt = (key, otherwise = "") =>
    options[key] ?? input.dataset[key] ?? input.form?.dataset[key] ?? fallback[key] ?? otherwise;

  const page = document;
  const root = /** @type {Document | ShadowRoot} */ (input.getRootNode());
  const off = new AbortController();
  const id = "signup-gate-" + ++count;
  const hold = +opt("timeoutMs", 800);
  const look = opt("appearance");
  const mode = opt("validateOn");
  const language =
    [opt("language"), page.documentElement.lang, ...navigator.languages, "en"]
      .map((tag) => tag.slice(0, 2).toLowerCase())
      .find((tag) => MESSAGES[tag]);
  const texts = MESSAGES[/** @type {string} */ (language)].split("|");
  /** @type {State} */
  let state = START;
  /** @type {Partial<Answer>} */
  let answer = {};
  let value = input.value.trim();
  let domain = "";
  let token = "";
  let tries = 0;
  let slow = false;
  let muted = false; // the page shows this answer itself
  let insisted = false; // the person wants this address
  let pressing = false; // a click is under way: nothing may move beneath it
  let invalid = false; // the field's custom validity is ours
  let undo = "";
  /** @type {any} */
  let submitter;
  /** @type {AbortController | undefined} */
  let running;
  /** @type {Map<string, Answer>} */
  const remembered = new Map();
  /** @type {((outcome: Outcome) => void)[]} */
  const waiting = [];
  /** @type {Record<string, number>} */
  const timers = {};

  // -- tools -------------------------------------------------------------------------------------

  /** @type {(timer: string, ms?: number, run?: () => void) => void} */
  const later = (timer, ms, run) => {
    clearTimeout(timers[timer]);
    if (run) timers[timer] = setTimeout(run, ms);
  };
  /** @type {(target: EventTarget, types: string, run: (event: any) => unknown) => void} */
  const on = (target, types, run) => {
    const how = { capture: true, signal: off.signal };
    for (const type of types.split(" ")) target.addEventListener(type, run, how);
  };
  /** Tell the page; false when it cancelled. @type {(type: string, detail?: unknown) => boolean} */
  const tell = (type, detail) =>
    input.dispatchEvent(
      new CustomEvent("gate:" + type, { ...BUBBLES, cancelable: true, detail: detail }),
    );
  /** @type {(key: string, argument?: unknown) => void} */
  const call = (key, argument) => {
    const run = /** @type {any} */ (window)[opt(key)] || opt(key);
    if (run.call) setTimeout(run, 0, argument); // its faults are the page's own
  };
  /** @type {(tag: string, properties: Record<string, unknown>, ...children: (Node | string)[]) => any} */
  const make = (tag, properties, ...children) => {
    const made = Object.assign(page.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // -- painting ----------------------------------------------------------------------------------

  const box = make("div", { className: "signup-gate", id: id, role: "status", ariaAtomic: true, dir: "auto", lang: language });
  /** @type {HTMLInputElement} */
  const field = make("input", { type: "hidden", name: opt("responseFieldName", "signup-gate-response") });
  /** @type {HTMLElement | undefined} */
  let link;

  /** @type {(text: number, press: () => void) => Node} */
  const button = (text, press) => {
    const parts = texts[text].split("{}");
    const made = make("button", { type: "button", onclick: press }, parts[0]);
    if (parts[1]) made.append(make("bdi", { dir: "auto" }, answer.did_you_mean || ""), parts[1]);
    return made;
  };
  /** @type {(mark: string, text?: string | null) => Node[]} */
  const line = (mark, text) => [make("b", { ariaHidden: true }, mark), ...(text ? [make("span", {}, text)] : [])];

  /** What is to be read in the present state. @returns {Node[]} */
  const message = () => {
    const name = state.name;
    const blocked = name === "blocked";
    const doubtful = name === "suggest" || name === "warn";
    if (muted) return [];
    if (state.spoken && (blocked || (doubtful && !insisted))) {
      const why = texts[WHY[answer.reason || ""]] || texts[blocked ? OTHER : DOUBT] || answer.message;
      const parts = line(blocked ? "✕" : "!", name === "suggest" ? "" : why);
      if (answer.did_you_mean) parts.push(button(SUGGESTION, accept));
      if (doubtful) parts.push(button(ANYWAY, () => happen({ type: "anyway" })));
      return parts;
    }
    const parts = look === "problems-only" ? [] : name === "ok" ? line("✓", texts[OK]) : slow ? line("", texts[CHECKING]) : [];
    if (undo) parts.push(button(UNDO, () => put(undo, "")));
    return parts;
  };

  const paint = () => {
    if (off.signal.aborted) return;
    input.dataset.gateState = state.name;
    field.value = token;
    if (pressing) return;
    const parts = message();
    if (parts.map((part) => part.textContent).join("") !== box.textContent) box.replaceChildren(...parts);
    const refused = state.name === "blocked" && state.spoken && !muted;
    if (refused || invalid) {
      input.setCustomValidity(refused ? parts[1].textContent || "" : "");
      input.ariaInvalid = refused ? "true" : null;
    }
    invalid = refused;
  };

  // -- the machine -------------------------------------------------------------------------------

  /** @type {(event: Happening, submit?: SubmitEvent) => void} */
  const happen = (event, submit) => {
    const previous = state.name;
    const after = next(state, event);
    state = after[0];
    for (const effect of after[1]) {
      if (effect === "clear") clear();
      if (effect === "ask") ask();
      if (effect === "hold") later("hold", hold, () => happen({ type: "timeup" }));
      if (effect === "override") {
        insisted = true;
        tell("override", { email: value, reason: answer.reason });
      }
      if (effect === "refuse") {
        box.role = "alert";
        box.textContent = ""; // to be read out again
        input.focus();
      }
      if (submit && effect !== "override") {
        submit.preventDefault();
        submit.stopImmediatePropagation();
      }
    }
    const settled = state.name !== "checking";
    if (settled) {
      slow = false;
      later("slow");
    }
    if (state.name !== previous) tell("statechange", { state: state.name, previous: previous });
    paint();
    if (after[1].includes("send")) send();
    if (settled) for (const settle of waiting.splice(0)) settle({ ...answer, state: state.name, token: token });
  };

  const clear = () => {
    running?.abort();
    running = undefined;
    answer = {};
    token = undo = "";
    box.role = "status";
    tries = 0;
    slow = muted = insisted = false;
    for (const timer in timers) later(timer);
  };

  const formOf = () => input.form || field.form;

  const send = () => {
    const form = formOf();
    later("hold");
    released = form;
    if (form?.isConnected) form.requestSubmit(submitter?.form === form ? submitter : null);
    released = 0;
  };

  // -- asking ------------------------------------------------------------------------------------

  /** The earlier request is given up: one at a time. @type {(path: string, fields: Record<string, any>) => Promise<Response>} */
  const post = (path, fields) => {
    running?.abort();
    running = new AbortController();
    return fetch(opt("url").replace(/\/$/, "") + "/v1/" + path, {
      method: "POST",
      body: new URLSearchParams({ sitekey: opt("sitekey"), ...fields }),
      credentials: "omit",
      signal: running.signal,
    });
  };

  /** Ask about the value; `patient` when an answer is there already, and nobody waits. */
  const ask = (patient = 0) => {
    const kept = remembered.get(value);
    later("pause");
    later("prefetch");
    if (kept && !patient && left(kept) > SPARE) {
      later("again", 0, () => learn(kept));
      return;
    }
    const asked = post("check", {
      email: value,
      action: opt("action"),
      cdata: opt("cdata"),
      timeout_ms: Math.min(patient || SERVER_LEAST + hold * HEADROOM, PATIENT) | 0,
    });
    const turn = running;
    let status = 0;
    if (!patient) {
      later("slow", SLOW, () => {
        slow = true;
        paint();
        later("slow", GIVE_UP, () => turn?.abort());
      });
    }
    asked
      .then((reply) => {
        status = reply.status;
        return reply.ok && reply.json();
      })
      .then((said) => {
        if (!said.decision) throw said;
        said.until = Date.now() + (+said.token_expires_in || 300) * 1000;
        if (turn === running) learn(said);
      })
      .catch(() => {
        if (turn !== running || patient) return;
        answer = { did_you_mean: slip(value) };
        happen(answer.did_you_mean ? { type: "answer", to: "suggest", pass: true } : { type: "fail" });
        tell("error", { status: status });
        call("errorCallback", status);
      });
  };

  /** Milliseconds that a token is still good for. @param {Partial<Answer>} said */
  const left = (said) => (said.until || 0) - Date.now();

  /** @param {Answer} said */
  const learn = (said) => {
    const decided = said.decision;
    const kind = decided === "warn" ? decided : said.reason === "accepted_email" ? "ok" : "unknown";
    const to = decided === "block" ? "blocked" : said.did_you_mean ? "suggest" : kind;
    running = undefined;
    answer = said;
    token = said.token || "";
    if (said.final) remembered.set(value, said);
    muted = !tell("result", said) || look === "none";
    if (to === "suggest" && !insisted && !muted) {
      muted = !tell("suggestion", { email: value, suggestion: said.did_you_mean });
    }
    happen({ type: "answer", to: to, pass: muted || decided === "allow" || (insisted && to !== "blocked") });
    if (token) {
      later("refresh", Math.max(left(said) - SPARE, left(said) / 2), () => page.hidden || ask(PATIENT));
      later("expire", left(said), expire);
      call("callback", token);
    }
    if (!said.final && tries < TRIES) {
      // Only what ran out of time is worth joining at once.
      later("again", tries || said.reason !== "timeout" ? AGAIN * 4 ** tries : 0, () => ask(PATIENT));
      tries++;
    }
  };

  const expire = () => {
    token = "";
    happen({ type: "expire" });
    tell("expire");
    call("expiredCallback");
  };

  // -- the page ----------------------------------------------------------------------------------

  const typed = () => {
    const text = input.value.trim();
    if (text === value) return;
    value = text;
    happen({ type: "input" });
    const complete = mode !== "submit" && /^[^\s@]+@([^\s@]+\.[^\s@.]{2,})$/.exec(value);
    if (!complete) return;
    if (complete[1] !== domain) {
      later("prefetch", QUIET, () => {
        domain = complete[1];
        post("prefetch", { domain: domain }).catch(() => {});
      });
    }
    later("pause", +opt("debounce", 400), () => {
      happen({ type: "pause" });
      if (mode === "input") happen({ type: "blur", ask: false });
    });
  };

  /** Put a value in as typing would, so that frameworks see it. @type {(text: string, back: string) => void} */
  const put = (text, back) => {
    Reflect.set(HTMLInputElement.prototype, "value", text, input);
    for (const type of ["input", "change"]) input.dispatchEvent(new Event(type, BUBBLES));
    typed();
    undo = back;
    insisted = !back;
    happen({ type: "blur", ask: true });
    input.focus();
  };

  const accept = () => {
    const email = input.value;
    const suggestion = answer.did_you_mean || "";
    put(suggestion, email);
    tell("suggestion-accepted", { email: email, suggestion: suggestion });
  };

  const reset = () => {
    value = input.value.trim();
    happen({ type: "input" });
  };

  /** The ids in aria-describedby without ours, and `more`. @param {string} more */
  const describe = (more) => {
    const ids = ((input.getAttribute(DESCRIBED) || "").replace(id, "") + more).trim();
    if (ids) input.setAttribute(DESCRIBED, ids);
    else input.removeAttribute(DESCRIBED);
  };

  on(input, "input change compositionend", (event) => event.isComposing || typed());
  on(input, "focus", () => {
    link = link || make("link", { rel: "preconnect", href: opt("url"), crossOrigin: "" });
    page.head.append(/** @type {Node} */ (link));
  });
  on(input, "blur", () => {
    // After the click that took the focus: a message now would move what is being clicked.
    later("blur", 0, () => {
      if (root.activeElement !== input) happen({ type: "blur", ask: mode !== "submit" && !!value });
    });
  });
  on(page, "pointerdown pointerup pointercancel", (event) => {
    pressing = event.type === "pointerdown";
    setTimeout(paint);
  });
  on(input, "invalid", (event) => {
    if (!invalid) return;
    event.preventDefault();
    typed();
    // Still blocked: say so again. Else a script changed the value: judge the new one.
    if (state.name === "blocked") happen({ type: "submit", hold: false });
    else later("again", 0, send);
  });
  on(root, "submit", (event) => {
    const again = released === event.target;
    if (event.target !== formOf()) return;
    typed();
    if (token && left(answer) < 0) expire();
    if (!again) submitter = event.submitter;
    if (value && input.willValidate) happen({ type: "submit", hold: hold > 0 && !again }, event);
  });
  on(root, "formdata", (event) => {
    // Whoever took the hidden field out of the form did not mean the token.
    if (event.target === formOf() && !field.isConnected) event.formData.set(field.name, token);
  });
  on(root, "reset", (event) => event.target === formOf() && later("reset", 0, reset));
  on(window, "pageshow", (event) => {
    // Back from the cache: the token is spent, and a request that was cut short never comes back.
    if (event.persisted) {
      remembered.clear();
      reset();
    }
  });

  describe(" " + id);
  const target = root.getElementById(opt("messageTarget"));
  if (target) target.append(box);
  else (input.closest("label") || input).after(box);
  input.form?.append(field);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(CSS);
  root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];

  /** @type {Handle} */
  const handle = {
    id: id,
    input: input,
    check: () =>
      new Promise((settle) => {
        typed();
        waiting.push(settle);
        happen(answer.decision || !value ? { type: "timeup" } : { type: "ask" });
      }),
    getResponse: () => token,
    isExpired: () => state.name === "expired",
    reset: reset,
    remove: () => {
      if (!attached.delete(input)) return;
      const held = state.held;
      reset();
      if (held) send();
      off.abort();
      describe("");
      delete input.dataset.gateState;
      for (const made of [box, field, link]) made?.remove();
      root.adoptedStyleSheets = root.adoptedStyleSheets.filter((one) => one !== sheet);
    },
  };
  attached.set(input, handle);
  paint();
  return handle;
};

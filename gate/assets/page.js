"use strict";
(() => {
  const form = document.getElementById("signup");
  const input = document.getElementById("email");
  const show = (id) => document.getElementById(id);
  const LINES = 5; // of events: the newest
  let typedAt = 0;
  let pausedAt = 0;

  const say = (id, text) => (show(id).textContent = text ?? "–");
  const ms = (since) => Math.round(performance.now() - since) + " ms";

  function chip(id, kind, text) {
    show(id).className = "chip " + kind;
    show(id).textContent = text;
  }

  function note(text) {
    const line = document.createElement("li");
    const at = document.createElement("b");
    at.textContent = "+" + ms(typedAt);
    line.append(at, text);
    show("events").append(line);
    while (show("events").children.length > LINES) show("events").firstChild.remove();
  }

  function serverForgets(text) {
    chip("success", "idle", "not asked");
    for (const id of ["v-decision", "v-result", "v-reason", "v-bound"]) say(id);
    say("took", "");
    say("v-raw", "POST /v1/siteverify");
    say("note", text);
    say("done", "");
  }

  // -- what the browser saw: the widget's own events ------------------------------------------------

  input.addEventListener("input", () => {
    typedAt = pausedAt = performance.now();
    show("events").replaceChildren();
    for (const id of ["decision", "reason", "meant", "final"]) say(id);
    say("shown", "");
    say("raw", "nothing yet");
    serverForgets("It calls siteverify when the form arrives: one request, and the newest verdict, even if the page never saw it.");
    for (const button of document.querySelectorAll("[data-address]")) {
      button.setAttribute("aria-current", String(button.dataset.address === input.value.trim()));
    }
  });

  input.addEventListener("gate:statechange", (event) => {
    const state = event.detail.state;
    chip("state", state, state);
    if (state === "checking") {
      pausedAt = performance.now();
      note("asks the gate");
    }
  });

  input.addEventListener("gate:result", (event) => {
    const answer = event.detail;
    note("answer: " + answer.reason + (answer.final ? "" : ", a better one may follow"));
    say("decision", answer.decision);
    say("reason", answer.reason);
    say("meant", answer.did_you_mean);
    say("final", answer.final ? "yes" : "no, asked again");
    say("raw", JSON.stringify(answer, null, 2));
    requestAnimationFrame(() => say("shown", "shown " + ms(pausedAt) + " after asking"));
  });

  for (const [type, text] of [
    ["suggestion-accepted", "suggestion taken"],
    ["override", "the person insists"],
    ["expire", "the token expired"],
    ["error", "the gate could not be asked: the form goes through"],
  ]) {
    input.addEventListener("gate:" + type, () => note(text));
  }

  // -- what the server saw: this page's own, which asks siteverify ------------------------------------

  async function send(data) {
    const began = performance.now();
    note("the form is sent");
    try {
      const reply = await fetch(form.action, { method: "POST", body: new URLSearchParams(data), credentials: "omit" });
      const told = await reply.json();
      if (!reply.ok) throw told;
      const answer = told.siteverify;
      const kind = answer.success ? "allow" : "block";
      chip("success", kind, answer.success ? "success" : answer["error-codes"].join(", "));
      say("took", "siteverify took " + told.milliseconds + " ms");
      say("v-decision", answer.decision);
      say("v-result", answer.result);
      say("v-reason", answer.reason);
      say("v-bound", answer.hostname ? [answer.hostname, answer.action].filter(Boolean).join(", ") : null);
      say("v-raw", JSON.stringify(answer, null, 2));
      say("note", told.token ? "The token was for this address, this page and this action. It is spent now: a second call says timeout-or-duplicate." : "There was no token: the address was checked now.");
      say("done", answer.success ? "Your server lets this signup in." : "Your server turns this signup away.");
      note("your server answered after " + ms(began));
    } catch (problem) {
      chip("success", "idle", "no answer");
      say("note", problem.detail || "The server could not be reached.");
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) send(new FormData(form));
    else input.focus();
  });

  show("bare").addEventListener("click", () => {
    if (!input.value.trim()) return input.focus();
    const data = new FormData(form);
    data.delete("signup-gate-response");
    send(data);
  });

  // -- the list -----------------------------------------------------------------------------------

  show("world").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-address]");
    if (!button) return;
    input.focus({ preventScroll: true });
    input.value = button.dataset.address;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.blur(); // as if somebody had typed it and gone on
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!window.matchMedia("(min-width: 64rem)").matches) {
      form.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
    } else {
      button.focus({ preventScroll: true });
    }
  });

  for (const id of ["tag", "curl"]) {
    show(id).textContent = show(id).textContent.replaceAll(/https?:\/\/[\w.:[\]]+/g, window.location.origin);
  }
  if (navigator.clipboard) {
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(show(button.dataset.copy).textContent);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 2000);
      });
    }
  }
})();

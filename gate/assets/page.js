"use strict";
(() => {
  const PAUSE_MS = 400; // how long typing must rest before the gate is asked
  const AGAIN_MS = 2000; // an answer that is not final is asked again after this …
  const AGAIN_MOST = 5; // … so many times
  const form = document.getElementById("signup");
  const input = document.getElementById("email");
  const message = document.getElementById("message");
  const suggestion = document.getElementById("suggestion");
  const mark = document.querySelector("#mark use");
  const hint = message.textContent;
  const show = (id) => document.getElementById(id);
  let timer = 0;
  let running = null;
  let asked = "";
  let last = null;

  function state(name) {
    form.dataset.state = name;
    if (name === "block") input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    if (name === "allow" || name === "warn" || name === "block") mark.setAttribute("href", "#s-" + name);
  }

  function clear() {
    clearTimeout(timer);
    if (running) running.abort();
    running = null;
    asked = "";
    last = null;
    message.textContent = input.value ? "" : hint;
    suggestion.hidden = true;
    state("idle");
    forget();
  }

  // What was said of one address must not stand beside the next.
  function forget() {
    show("decision").replaceChildren("–");
    for (const id of ["reason", "final", "took"]) show(id).textContent = "–";
    show("raw").textContent = "POST /v1/check";
  }

  function chip(decision) {
    const box = document.createElement("span");
    box.className = "chip " + decision;
    const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    icon.setAttribute("aria-hidden", "true");
    use.setAttribute("href", "#s-" + decision);
    icon.append(use);
    box.append(icon, decision);
    return box;
  }

  function tell(answer, took) {
    last = answer;
    const sure = answer.reason !== "unconfirmed" && answer.reason !== "timeout" && answer.reason !== "throttled";
    state(answer.decision === "allow" && !sure ? "unknown" : answer.decision);
    const good = sure ? "This address can receive mail." : "Nothing was proved: the person is let in.";
    message.textContent = answer.message || (answer.decision === "allow" ? good : "");
    suggestion.hidden = !answer.did_you_mean;
    suggestion.textContent = answer.did_you_mean ? "Did you mean " + answer.did_you_mean + "?" : "";
    suggestion.dataset.address = answer.did_you_mean || "";
    show("decision").replaceChildren(chip(answer.decision));
    show("reason").textContent = answer.reason;
    show("took").textContent = took + " ms";
    show("raw").textContent = JSON.stringify(answer, null, 2);
  }

  function fail(text) {
    state("idle");
    message.textContent = text;
    forget();
  }

  async function ask(email, again) {
    if (running) running.abort();
    const turn = (running = new AbortController());
    asked = email;
    if (again === 0) state("checking");
    const began = performance.now();
    try {
      const body = new URLSearchParams({ email, sitekey: form.dataset.sitekey });
      const reply = await fetch("/v1/check", { method: "POST", body, signal: turn.signal, credentials: "omit" });
      const answer = await reply.json();
      if (turn !== running) return;
      running = null;
      if (!reply.ok) return fail("The gate refused the call: " + (answer.detail || answer.title || reply.status));
      tell(answer, Math.round(performance.now() - began));
      const more = !answer.final && again < AGAIN_MOST;
      show("final").textContent = answer.final ? "yes" : more ? "no, asking again" : "no";
      if (more) timer = setTimeout(() => ask(email, again + 1), AGAIN_MS);
    } catch (error) {
      if (turn !== running) return;
      running = null;
      fail("The gate could not be reached. A real form would let the person in.");
    }
  }

  function current() {
    for (const button of document.querySelectorAll("[data-address]")) {
      if (button === suggestion) continue;
      button.setAttribute("aria-current", String(button.dataset.address === input.value.trim()));
    }
  }

  function take(address) {
    input.value = address;
    clear();
    current();
    ask(address, 0);
  }

  input.addEventListener("input", () => {
    clear();
    current();
    const email = input.value.trim();
    if (email.includes("@")) timer = setTimeout(() => ask(email, 0), PAUSE_MS);
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const email = input.value.trim();
    if (!email) return input.focus();
    clearTimeout(timer);
    if (asked !== email || !last) await ask(email, AGAIN_MOST);
    if (!last) return;
    if (last.decision === "allow") message.textContent = "The signup would go through now.";
    if (last.decision === "block") input.focus();
    if (last.decision === "warn" && form.dataset.warned === email) message.textContent = "The signup would go through now.";
    form.dataset.warned = last.decision === "warn" ? email : "";
  });

  suggestion.addEventListener("click", () => {
    take(suggestion.dataset.address);
    input.focus();
  });

  document.querySelector(".world").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-address]");
    if (!button) return;
    take(button.dataset.address);
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!window.matchMedia("(min-width: 60rem)").matches) {
      form.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
    }
  });

  const command = show("curl");
  command.textContent = command.textContent.replace(/https?:\/\/[^/]+/, window.location.origin);

  if (navigator.clipboard) {
    const copy = show("copy");
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command.textContent);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), AGAIN_MS);
    });
  }
})();

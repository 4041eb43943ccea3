// The script tag: finds e-mail fields, now and later, and makes `SignupGate`.
//
// What it promises: loaded twice it does nothing the second time; with `?render=explicit` it touches
// no field that it is not given. The build puts machine.js, messages.js, gate.js and this file into
// one function.
//
// Bugs: a field inside a shadow tree is not found by itself; give it to `render`.

import { attach, attached } from "./gate.js";

const FIELDS = "input[type=email],input[autocomplete~=email],input[data-gate]";
const SETTLE = 50; // milliseconds: a page that is being built changes many times in a row

/** @param {HTMLScriptElement} script */
const start = (script) => {
  const src = script.src;
  const explicit = /[?&]render=explicit/.test(src);
  const fallback = { url: src.split("/v1/")[0], ...script.dataset };
  const left = new WeakSet();
  let due = 0;

  /** @param {any} input */
  const take = (input) => {
    if (!input.closest("[data-gate=off]") && !left.has(input)) attach(input, {}, fallback);
  };
  const scan = () => {
    due = 0;
    for (const handle of attached.values()) if (!handle.input.isConnected) handle.remove();
    if (!explicit) document.querySelectorAll(FIELDS).forEach(take);
  };
  /** @param {string} [id] */
  const find = (id) => [...attached.values()].find((handle) => !id || handle.id === id);

  /** @type {any} */
  const api = {
    /** @param {() => void} run */
    ready: (run) => run(),
    /** @param {any} where @param {Record<string, any>} [options] */
    render: (where, options) => {
      const found = where.closest ? where : document.querySelector(where);
      return attach(found.type ? found : found.querySelector("input"), options, fallback).id;
    },
  };
  for (const verb of ["check", "getResponse", "isExpired", "reset", "remove"]) {
    api[verb] = (/** @type {string} */ id) => {
      const handle = /** @type {any} */ (find(id));
      if (verb === "remove" && handle) left.add(handle.input);
      return handle?.[verb]();
    };
  }
  /** @type {any} */ (window).SignupGate = api;
  api.execute = api.check;
  scan();
  new MutationObserver(() => {
    due = due || setTimeout(scan, SETTLE);
  }).observe(document, { childList: true, subtree: true });
  /** @type {any} */ (window)[src.split("onload=")[1]?.split("&")[0]]?.();
};

if (!("SignupGate" in window)) start(/** @type {HTMLScriptElement} */ (document.currentScript));

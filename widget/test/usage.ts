// How an application uses the package; only its types are checked.

import * as source from "../gate.js";
import { attach, type Answer, type Outcome } from "../types";

// What the types promise is what the source does.
export const same: typeof attach = source.attach;

export async function signup(input: HTMLInputElement): Promise<string | undefined> {
  const gate = attach(input, { url: "https://gate.example.com", sitekey: "pk_1", timeoutMs: 500 });
  input.addEventListener("gate:result", (event) => {
    const answer: Answer = event.detail;
    if (answer.decision === "block") event.preventDefault();
  });
  input.addEventListener("gate:statechange", ({ detail }) => detail.state === "ok");
  const outcome: Outcome = await gate.check();
  if (outcome.state === "blocked") return outcome.reason;
  gate.remove();
  window.SignupGate?.render("#email", { appearance: "problems-only" });
  return gate.getResponse() || undefined;
}

// Ask the signup gate before you make an account. Node.js 18 or newer, no package.
//
// refusal(email) is what you copy: null lets the person in, a text is to be shown beside the field.
// When the gate cannot be asked, the person is let in.
//
//     GATE_URL=http://127.0.0.1:8080 GATE_SECRET=sk_… node signup.mjs

import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const { GATE_URL, GATE_SECRET } = process.env; // the secret is for servers only, never in a page
const TIMEOUT_MS = 2000; // the gate answers within 800 of its own accord

export async function refusal(email) {
  if (email.length > 254) return "This is too long for an e-mail address.";
  let answer;
  try {
    const response = await fetch(`${GATE_URL}/v1/check`, {
      method: "POST",
      headers: { Authorization: `Bearer ${GATE_SECRET}` },
      body: new URLSearchParams({ email }), // sent as a form, which any text survives
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    answer = await response.json();
  } catch (error) {
    console.error(`signup gate: ${error.name}`);
    return null;
  }
  if (answer?.decision !== "block") return null;
  return answer.did_you_mean
    ? `This address cannot be used. Did you mean ${answer.did_you_mean}?`
    : "This address cannot be used. Is it spelled right?";
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for await (const line of createInterface({ input: process.stdin })) {
    const said = await refusal(line.trim());
    console.log(said === null ? "allow" : `block: ${said}`);
  }
}

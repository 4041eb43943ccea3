// Answers one JSON request a line with the platforms' own libraries. Run by tests/hooks/test_sdk.py.

import { createInterface } from "node:readline";
import { WorkOS } from "@workos-inc/node";
import { Webhook } from "standardwebhooks";

const actions = new WorkOS("sk_not_used").actions;

const does = {
  "standard.sign": ({ secret, id, at, body }) =>
    new Webhook(secret).sign(id, new Date(at * 1000), body),
  "standard.verify": ({ secret, headers, body }) => {
    new Webhook(secret).verify(body, headers);
    return true;
  },
  "workos.verify": async ({ secret, header, body }) => {
    await actions.constructAction({ payload: JSON.parse(body), sigHeader: header, secret });
    return true;
  },
  "workos.seal": ({ secret, answer }) =>
    actions.computeSignature(answer.payload.timestamp, answer.payload, secret),
  "workos.sign": ({ secret, verdict, message }) =>
    actions.signResponse(
      { type: "user_registration", verdict, ...(message ? { errorMessage: message } : {}) },
      secret,
    ),
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = { value: await does[request.do](request) };
  } catch (error) {
    answer = { error: `${error.constructor.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

// The event and the api object as Auth0's documentation of the trigger describes them.
import { createRequire } from "node:module";
import { answer } from "./lines.mjs";

const require = createRequire(import.meta.url);
const { onExecutePreUserRegistration } = require(`${process.argv[2]}/auth0_action.js`);
const { GATE_URL, GATE_SECRET } = process.env;

await answer(async (email) => {
  let denied = null;
  const api = { access: { deny: (reason, userMessage) => (denied = [reason, userMessage]) } };
  const event = {
    user: { email, username: "jane" },
    request: { ip: "203.0.113.7", hostname: "example.auth0.com" },
    secrets: { GATE_URL, GATE_SECRET },
  };
  await onExecutePreUserRegistration(event, api);
  if (denied && !/^signup gate: [a-z_]+$/.test(denied[0])) throw new Error(denied[0]);
  return denied && denied[1];
});

// Firebase Authentication with Identity Platform: a blocking function that runs before a user is
// made. Set the secret with `firebase functions:secrets:set GATE_SECRET`, and GATE_URL in .env.
//
// Firebase waits 7 seconds; a function that fails refuses the signup. So the only error thrown here
// is the refusal, whose text the client is given.

const { HttpsError, beforeUserCreated } = require("firebase-functions/v2/identity");
const { defineSecret, defineString } = require("firebase-functions/params");

const gateUrl = defineString("GATE_URL");
const gateSecret = defineSecret("GATE_SECRET");
const TIMEOUT_MS = 2000;

exports.beforecreated = beforeUserCreated({ secrets: [gateSecret] }, async (event) => {
  const email = event.data?.email;
  if (!email) return; // a telephone number, or anonymous
  const said = await refusal(email);
  if (said) throw new HttpsError("invalid-argument", said);
});

async function refusal(email) {
  let answer;
  try {
    const response = await fetch(`${gateUrl.value()}/v1/check`, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${gateSecret.value()}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify({ email }),
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

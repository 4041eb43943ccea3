// Amazon Cognito: a Lambda function for the trigger "Pre sign-up". Node.js 18 or newer, nothing to
// install. Set GATE_URL and GATE_SECRET in its environment.
//
// Cognito waits 5 seconds and tries up to 3 times; a function that fails refuses the signup, with the
// text of its error shown as "PreSignUp failed with error …". So the only error thrown here is the
// refusal. Accounts that an administrator makes are not checked.

const TIMEOUT_MS = 1500;

export const handler = async (event) => {
  const email = event.request.userAttributes.email;
  if (!email || event.triggerSource === "PreSignUp_AdminCreateUser") return event;
  const said = await refusal(email);
  if (said) throw new Error(said);
  return event;
};

async function refusal(email) {
  let answer;
  try {
    const response = await fetch(`${process.env.GATE_URL}/v1/check`, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${process.env.GATE_SECRET}`,
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

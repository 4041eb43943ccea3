// Auth0: an Action for the trigger "Pre User Registration". Nothing to install. Add two secrets to
// the Action, GATE_URL and GATE_SECRET, and drag it into the flow.
//
// The trigger runs for database and passwordless connections. Auth0 gives an Action 20 seconds and
// fails the signup when it throws or takes longer; so this one catches everything, and waits 2.

exports.onExecutePreUserRegistration = async (event, api) => {
  const email = event.user.email;
  if (!email) return;
  let answer;
  try {
    const response = await fetch(`${event.secrets.GATE_URL}/v1/check`, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${event.secrets.GATE_SECRET}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify({ email }),
      signal: AbortSignal.timeout(2000),
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    answer = await response.json();
  } catch (error) {
    console.error(`signup gate: ${error.name}`);
    return;
  }
  if (answer?.decision === "block") {
    api.access.deny(
      `signup gate: ${answer.because}`, // for your log
      answer.did_you_mean
        ? `This address cannot be used. Did you mean ${answer.did_you_mean}?`
        : "This address cannot be used. Is it spelled right?",
    );
  }
};

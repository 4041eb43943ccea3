// The event of a pre sign-up trigger, version 1. What Lambda does with the handler's outcome: an
// event lets in, an error refuses.
import { answer } from "./lines.mjs";

const { handler } = await import(`${process.argv[2]}/cognito_trigger.mjs`);

const event = (triggerSource, userAttributes) => ({
  version: "1",
  triggerSource,
  region: "eu-central-1",
  userPoolId: "eu-central-1_example",
  userName: "jane",
  callerContext: { awsSdkVersion: "aws-sdk-unknown-unknown", clientId: "example" },
  request: { userAttributes, validationData: null },
  response: { autoConfirmUser: false, autoVerifyEmail: false, autoVerifyPhone: false },
});

for (const source of ["PreSignUp_SignUp", "PreSignUp_ExternalProvider"]) {
  const phone = event(source, { phone_number: "+4930123456" });
  if ((await handler(phone)) !== phone) throw new Error("a user without an address is let in");
}
const made = event("PreSignUp_AdminCreateUser", { email: "nobody@inbox.test" });
if ((await handler(made)) !== made) throw new Error("an administrator's user is not checked");

await answer(async (email) => {
  const sent = event("PreSignUp_SignUp", { email });
  try {
    if ((await handler(sent)) !== sent) throw new Error("the event is to be returned");
    return null;
  } catch (error) {
    return error.message;
  }
});

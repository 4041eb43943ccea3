// The function as Firebase's own SDK runs it, past the signature that only Google can make.
import { createRequire } from "node:module";
import { answer } from "./lines.mjs";

const require = createRequire(import.meta.url);
const { beforecreated } = require(`${process.argv[2]}/firebase_function.js`);
if (beforecreated.__endpoint.blockingTrigger.eventType !== "providers/cloud.auth/eventTypes/user.beforeCreate")
  throw new Error("this is no blocking function");
if ((await beforecreated.run({ data: { phoneNumber: "+4930123456" } })) !== undefined)
  throw new Error("a user without an address is let in");

await answer(async (email) => {
  try {
    await beforecreated.run({ data: { uid: "1", email } });
    return null;
  } catch (error) {
    if (error.code !== "invalid-argument") throw error;
    return error.message;
  }
});

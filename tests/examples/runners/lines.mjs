// One line of standard input after the other, each answered with a line.
import { createInterface } from "node:readline";

export const answer = async (ask) => {
  for await (const line of createInterface({ input: process.stdin })) {
    const said = await ask(line.trim());
    console.log(said === null ? "allow" : `block: ${said}`);
  }
};

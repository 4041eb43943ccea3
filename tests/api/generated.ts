// What somebody writes with the types that openapi-typescript makes of our document.
import createClient from "openapi-fetch";
import type { components, paths } from "./gate.js";

declare const process: { env: { GATE_URL: string; GATE_SECRET: string } };

const gate = createClient<paths>({
  baseUrl: process.env.GATE_URL,
  headers: { Authorization: `Bearer ${process.env.GATE_SECRET}` },
});

const checked = await gate.POST("/v1/check", { body: { email: "jane..doe@inbox.test" } });
if (!checked.data || !("id" in checked.data)) throw new Error(checked.error?.title);
const answer: components["schemas"]["FullAnswer"] = checked.data;
const blocked: boolean = answer.decision === "block";
console.log(answer.result, answer.reason, blocked ? "block" : "?");

const found = await gate.GET("/v1/checks/{id}", { params: { path: { id: answer.id } } });
console.log(found.data?.id === answer.id ? "the same" : found.error?.detail);

const verified = await gate.POST("/v1/siteverify", { body: { response: "v1.a.b.c" } });
console.log(verified.data?.success, verified.data?.["error-codes"]?.join());

const wrong = await gate.POST("/v1/check", { body: { email: "jane@inbox.test", timeout_ms: 1 } });
console.log(wrong.error?.status, wrong.error?.type);

// What arrives at a webhook has a type as well.
export const late = (sent: components["schemas"]["CheckCompleted"]): string =>
  `${sent.data.check}: ${sent.data.first.reason}, then ${sent.data.reason satisfies string}`;

// A signup form with Express: the gate is asked when it is submitted, and a refusal shows the form
// again. Put signup.mjs beside this file.
//
//     npm install express
//     GATE_URL=http://127.0.0.1:8080 GATE_SECRET=sk_… node express_form.mjs

import express from "express";
import { fileURLToPath } from "node:url";
import { refusal } from "./signup.mjs";

const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const page = (email = "", error = "") => `<!doctype html><form method="post">
  <input type="email" name="email" value="${escaped(email)}" required>
  <p role="alert">${escaped(error)}</p>
  <button>Sign up</button></form>`;

export const app = express();

app.get("/signup", (request, response) => response.send(page()));

app.post("/signup", express.urlencoded({ limit: "8kb" }), async (request, response) => {
  // A field that is sent twice is a list.
  const email = String(request.body?.email ?? "").trim();
  const said = await refusal(email);
  if (said) return response.status(422).send(page(email, said));
  response.send("welcome");
});

if (process.argv[1] === fileURLToPath(import.meta.url)) app.listen(3000, "127.0.0.1");

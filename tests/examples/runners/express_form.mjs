// A browser that has no JavaScript, and the Express application.
import { answer } from "./lines.mjs";

const { app } = await import(`${process.argv[2]}/express_form.mjs`);
const server = app.listen(0, "127.0.0.1");
await new Promise((ready) => server.once("listening", ready));
const url = `http://127.0.0.1:${server.address().port}/signup`;

await answer(async (email) => {
  const response = await fetch(url, { method: "POST", body: new URLSearchParams({ email }) });
  const text = await response.text();
  if (response.status === 200 && text === "welcome") return null;
  if (response.status !== 422 || !text.includes(`value="${email}"`)) throw new Error(text);
  return text.match(/role="alert">(.*?)</)[1];
});
server.closeAllConnections();
server.close();

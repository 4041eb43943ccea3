// A Parse Server on the database and the port that the environment names.

import express from "express";
import { ParseServer } from "parse-server";

const { DATABASE, PORT, WEBHOOK_KEY } = process.env;
const parse = new ParseServer({
  databaseURI: DATABASE,
  appId: "app",
  masterKey: "master",
  serverURL: `http://127.0.0.1:${PORT}/parse`,
  webhookKey: WEBHOOK_KEY,
  silent: true,
});
await parse.start();
express().use("/parse", parse.app).listen(Number(PORT), "127.0.0.1", () => console.log("ready"));

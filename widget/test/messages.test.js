// Every language says everything.

import assert from "node:assert/strict";
import { test } from "node:test";

import { slip } from "../gate.js";
import { MESSAGES, OTHER, WHY } from "../messages.js";

const languages = Object.keys(MESSAGES);

test("at least eight languages, one of them from right to left", () => {
  assert.ok(languages.length >= 8);
  assert.ok(languages.some((tag) => /[\u0590-\u06ff]/.test(MESSAGES[tag])));
});

for (const tag of languages) {
  test(`${tag} has a text for everything, and a place for the address`, () => {
    const texts = MESSAGES[tag].split("|");
    assert.equal(texts.length, tag === "en" ? OTHER : Math.max(...Object.values(WHY)) + 1);
    assert.ok(texts.every((text) => text.trim().length > 1));
    assert.deepEqual(
      texts.map((text) => text.split("{}").length - 1),
      texts.map((_, at) => (at === 2 ? 1 : 0)),
    );
    assert.ok(!/[<>&]/.test(MESSAGES[tag]));
  });
}

const SLIPS = [
  ["jane@gmial.com", "jane@gmail.com"],
  ["jane@gmai.com", "jane@gmail.com"],
  ["Jane.Doe+x@GNAIL.com", "Jane.Doe+x@gmail.com"],
  ["jane@gmail.con", "jane@gmail.com"],
  ["jane@gmail.co", "jane@gmail.com"],
  ["jane@gmail.cmo", "jane@gmail.com"],
  ["jane@gmail.cm", "jane@gmail.com"],
  ["jane@gmal.con", "jane@gmail.com"],
  ["jane@hotmail.con", "jane@hotmail.com"],
  ["jane@yahoo.cm", "jane@yahoo.com"],
  ["jane@gmail.com", ""],
  ["jane@hotmail.com", ""],
  ["jane@yahoo.co.uk", ""],
  ["jane@yahoo.com.br", ""],
  ["jane@ymail.com", ""],
  ["jane@email.com", ""],
  ["jane@mail.com", ""],
  ["jane@gmx.de", ""],
  ["jane@company.co", ""],
  ["jane@gmail.example.com", ""],
  ["jane@notgmial.com", ""],
  ["jane", ""],
  ["", ""],
];
for (const [typed, meant] of SLIPS) {
  test(`slip: ${typed || "nothing"} → ${meant || "nothing"}`, () => assert.equal(slip(typed), meant));
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { literal } from "../scripts/literal.js";
import { addresses } from "../src/address.js";

test("a literal holds any byte, wherever it stands", () => {
  const bytes = [];
  for (let high = 0; high < 256; high += 1) bytes.push(high, 0, 0x30, 0, high);
  // Evaluated, as a browser evaluates the file that it stands in.
  const text = new Function(`return ${literal(Uint8Array.from(bytes))}`)();
  assert.deepEqual(Array.from(text, (character) => character.charCodeAt(0)), bytes);
});

test("a hub's addresses keep its path and its security", () => {
  const at = (given) => Object.values(addresses(given));
  assert.deepEqual(at("http://a:7070"), ["ws://a:7070/ws", "http://a:7070/set-cookie"]);
  assert.deepEqual(at("https://a/hub/"), ["wss://a/hub/ws", "https://a/hub/set-cookie"]);
  assert.deepEqual(at("wss://a/hub"), ["wss://a/hub/ws", "https://a/hub/set-cookie"]);
});

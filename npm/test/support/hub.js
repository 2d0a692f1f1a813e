import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const PROGRAM = process.env.TWINE_HUB ?? fileURLToPath(new URL("../../../target/debug/twine-hub", import.meta.url));
const KEY = "a-key-for-tests";

/** A real hub on a free port, which can be stopped and started again with what it stored. */
export class Hub {
  url;
  #folder;
  #process;

  static async start(settings = {}) {
    const hub = new Hub();
    hub.#folder = await mkdtemp(join(tmpdir(), "twine-hub-"));
    await hub.run("127.0.0.1:0", settings);
    return hub;
  }

  /** Runs the hub again where it was before. */
  async again() {
    await this.run(new URL(this.url).host);
  }

  async run(listen, settings = {}) {
    const env = {
      PATH: process.env.PATH,
      TWINE_LISTEN: listen,
      TWINE_DATA_DIR: this.#folder,
      TWINE_API_KEY: KEY,
      ...settings,
    };
    this.#process = spawn(PROGRAM, [], { env, stdio: ["ignore", "ignore", "pipe"] });
    for await (const line of createInterface({ input: this.#process.stderr })) {
      const address = /listening .*address=(\S+)/.exec(line)?.[1];
      if (!address) continue;
      this.url = `http://${address}`;
      // What else it says is read and dropped, so that it never waits for a reader.
      this.#process.stderr.resume();
      return;
    }
    throw new Error(`${PROGRAM} did not start`);
  }

  /** Ends it at once, as a crash does. */
  async kill() {
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await gone;
  }

  async stop() {
    if (this.#process.exitCode === null && this.#process.signalCode === null) await this.kill();
    await rm(this.#folder, { recursive: true });
  }

  /** Publishes, and gives the message's position. */
  async publish(room, data) {
    const answer = await fetch(`${this.url}/api/publish`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" },
      body: JSON.stringify({ room, data }),
    });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    return answer.json();
  }
}

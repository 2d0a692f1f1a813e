// A real hub on a free port, started in a folder of its own, where it keeps its data.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Program, built, run } from "./program.js";

export class Hub {
  #program;
  /** Further flags of `twine-hub serve`, from the next start on. */
  settings;

  /** Starts a hub, as it is without any configuration but its port. */
  static async start(settings = []) {
    const hub = new Hub();
    hub.settings = settings;
    hub.folder = await mkdtemp(join(tmpdir(), "twine-e2e-"));
    hub.port = 0;
    await hub.resume();
    hub.keyFile = join(hub.folder, "twine-data/api-key");
    hub.key = (await readFile(hub.keyFile, "utf8")).trim();
    return hub;
  }

  /** As pages on this machine reach it. */
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts it again on the same port and folder. */
  async resume() {
    const args = ["serve", "--listen", `127.0.0.1:${this.port}`, ...this.settings];
    const { program, port } = await Program.listening(built("twine-hub"), args, { cwd: this.folder });
    this.#program = program;
    this.port = port;
  }

  /** Stops it; `SIGKILL` leaves it no time for anything. */
  stop(signal) {
    return this.#program.stop(signal);
  }

  /** Stops it for good. */
  async remove() {
    await this.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  get log() {
    return this.#program.log;
  }

  /** Waits for a line of its log: the log comes by another way than what a page is told. */
  logged(pattern) {
    return this.#program.logged(pattern);
  }

  /** Publishes, and gives the message's position. */
  async publish(room, data) {
    const answer = await fetch(`${this.url}/api/publish`, {
      method: "POST",
      headers: { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ room, data }),
    });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    return answer.json();
  }

  /** Publishes the numbers of a range, one after the other; gives the last one's position. */
  async count(room, from, to) {
    let last;
    for (let n = from; n <= to; n += 1) last = await this.publish(room, n);
    return last;
  }

  /**
   * Waits until a room has so many subscribers. The hub tells nobody who comes and goes, and logs it
   * nowhere: it has to be asked, and nothing depends on how often.
   */
  async subscribers(room, n) {
    const headers = { Authorization: `Bearer ${this.key}` };
    for (;;) {
      const answer = await fetch(`${this.url}/api/rooms/${room}`, { headers });
      if ((await answer.json()).subscribers === n) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Publishes by plain HTTP. */
  curl(room, data) {
    return run("curl", [
      ...["--silent", "--show-error", "--fail-with-body", "--noproxy", "*", `${this.url}/api/publish`],
      ...["--header", `Authorization: Bearer ${this.key}`, "--json", JSON.stringify({ room, data })],
    ]);
  }

  /** Publishes from the command line of the hub. */
  command(room, data) {
    const where = ["--url", this.url, "--api-key", this.key];
    return run(built("twine-hub"), ["publish", room, JSON.stringify(data), ...where]);
  }

  /** Publishes through the Rust SDK, one message after the other; retries while the hub is away. */
  sdk(room, messages) {
    const env = { TWINE_API_KEY: this.key, NO_PROXY: "127.0.0.1" };
    const program = new Program(built("examples/publish"), [room, this.url], { env });
    program.input(messages.map((data) => `${JSON.stringify(data)}\n`).join(""));
    return program.finished();
  }
}

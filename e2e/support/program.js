// Programs that a test runs, for real: started, waited for by what they print, stopped by their id.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const run_ = promisify(execFile);

/** The repository. */
export const ROOT = new URL("../../", import.meta.url).pathname;

/** A program as `cargo build` leaves it. */
export const built = (name) => `${ROOT}target/debug/${name}`;

/** Runs a program to its end; gives what it printed. */
export async function run(command, args, options) {
  const { stdout } = await run_(command, args, { encoding: "utf8", ...options });
  return stdout.trim();
}

/** A program that runs until it is stopped. */
export class Program {
  #child;
  #exited;
  #log = [];
  #waiting = new Set();

  constructor(command, args, { env = {}, cwd } = {}) {
    this.#child = spawn(command, args, {
      cwd,
      env: { ...process.env, RUST_LOG: "info", ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#exited = once(this.#child, "exit");
    // Whoever waits hears of a program that could not be started; others need not.
    this.#exited.catch(() => {});
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        this.#log.push(line);
        for (const look of this.#waiting) look(line);
      });
    }
  }

  /** Waits for the line that says where it listens; gives `{ program, port }`. */
  static async listening(command, args, options) {
    const program = new Program(command, args, options);
    try {
      const [, port] = await program.logged(/listening.*address=\S*?:(\d+)\b/);
      return { program, port: Number(port) };
    } catch (error) {
      await program.stop("SIGKILL");
      throw error;
    }
  }

  get pid() {
    return this.#child.pid;
  }

  /** What it has printed, for the report of a test that failed. */
  get log() {
    return this.#log.join("\n");
  }

  /** Waits until it prints, or has printed, a line that matches; gives the match. */
  logged(pattern) {
    return new Promise((resolve, reject) => {
      const look = (line) => {
        const found = pattern.exec(line);
        if (!found) return;
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      this.#log.forEach(look);
      const ended = ([code]) => reject(new Error(`${this.#child.spawnfile} ended with ${code} and no ${pattern}:\n${this.log}`));
      this.#exited.then(ended, reject);
    });
  }

  /** Writes to its standard input, and ends that. */
  input(text) {
    this.#child.stdin.end(text);
  }

  /** Waits for its end; fails where it did not end well. */
  async finished() {
    const [code, signal] = await this.#exited;
    if (code !== 0) throw new Error(`${this.#child.spawnfile} ended with ${code ?? signal}:\n${this.log}`);
  }

  /** Ends it and waits until it is gone. */
  async stop(signal = "SIGTERM") {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    await this.#exited;
  }
}

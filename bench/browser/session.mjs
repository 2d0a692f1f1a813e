import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";

/**
 * Does the work in a session, and so a scheduling group, of its own with a priority above the rest (BENCH_NICE),
 * as `bench.py` does: other work on the machine must not hold up what goes by the clock. For that this
 * program runs again; whoever ends it ends all that it has started.
 */
export async function inOwnSession(work) {
  if (process.env.BENCH_SESSION) {
    try {
      writeFileSync("/proc/self/autogroup", process.env.BENCH_NICE ?? "-10");
    } catch {
      // No such grouping, or no right to it: then the machine has to be quiet.
    }
    return work();
  }
  const env = { ...process.env, BENCH_SESSION: "1" };
  const again = spawn(process.execPath, process.argv.slice(1), { env, detached: true, stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.kill(-again.pid, signal));
  const [code] = await once(again, "exit");
  process.exitCode = code ?? 1;
}

import { existsSync } from "node:fs";

/** Something is not installed. The message says what to do. */
class Missing extends Error {}

/** Gives the path, or ends the run with what is to be done where nothing is there. */
export function need(path, how) {
  if (!existsSync(path)) throw new Missing(`needs ${path}: ${how}`);
  return path;
}

/** Imports a package that `npm ci` installs. */
export function needPackage(name) {
  return import(name).catch((cause) => {
    throw new Missing(`needs ${name}: npm ci in bench/browser`, { cause });
  });
}

/** Does the work of a program; what is missing is said in one line, with the exit code of `peers/*.sh`. */
export async function orSay(work) {
  try {
    await work();
  } catch (error) {
    console.error(error instanceof Missing ? error.message : error);
    process.exitCode = error instanceof Missing ? 3 : 1;
  }
}

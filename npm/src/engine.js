import * as glue from "../wasm/core_bg.js";
import { TwineError, words } from "./error.js";

let ready;

/**
 * The compiled module, once a page: all Twines share its code and memory, each has its own driver.
 *
 * Compiled asynchronously, since engines refuse to compile more than a few KiB at once on a page's
 * main thread.
 */
export function engine(source) {
  return (ready ??= start(source).catch((error) => {
    ready = undefined; // another attempt may have another source
    throw error;
  }));
}

async function start(source) {
  const module = await compile(await load(source));
  try {
    // The build has shortened the names of both sides (scripts/shrink.js).
    const { exports } = await WebAssembly.instantiate(module, { a: glue });
    glue.__wbg_set_wasm(exports);
    glue.__wbg_start();
    return glue;
  } catch (cause) {
    throw missing("it is none of this version", cause, false);
  }
}

function missing(why, cause, retryable = true) {
  return new TwineError("wasm_missing", `the module could not be loaded: ${why}`, { retryable, cause });
}

/** The module or its bytes, from wherever the app has them. */
async function load(source) {
  try {
    const given = await (typeof source === "function" ? source() : source);
    const found = typeof given === "string" || given instanceof URL ? await fetch(given) : given;
    if (found.ok === false) throw missing(`${found.url} answered ${found.status}`);
    return found.arrayBuffer ? await found.arrayBuffer() : found;
  } catch (cause) {
    throw cause instanceof TwineError ? cause : missing(words(cause), cause);
  }
}

async function compile(code) {
  if (!globalThis.WebAssembly) throw unsupported();
  if (code instanceof WebAssembly.Module) return code;
  try {
    return await WebAssembly.compile(code);
  } catch (cause) {
    // Validation is not subject to the page's policy: what is valid and still refused was blocked.
    if (!WebAssembly.validate(code)) throw unsupported(cause);
    throw new TwineError(
      "wasm_blocked",
      "the page's policy forbids WebAssembly: add 'wasm-unsafe-eval' to script-src in its Content-Security-Policy",
      { cause },
    );
  }
}

function unsupported(cause) {
  return new TwineError(
    "wasm_unsupported",
    "this engine can't run the module: it needs WebAssembly with reference types (browsers since 2022)",
    { cause },
  );
}

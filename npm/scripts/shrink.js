// Makes the module small: what wasm-pack leaves to do. Together 15 % of it.
import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import binaryen from "binaryen";

/**
 * What a panic calls. On the way to its `unreachable` it formats a message that nobody can read:
 * there is no stderr in a browser. Without that, the formatting machinery goes too.
 */
const PANICS =
  /panicking::|panic_(fmt|handler|already|with_hook)|(unwrap|expect)_failed|slice_index_fail|handle_(alloc_)?error|capacity_overflow|throw_str/;

/**
 * What the glue has for engines that can't run the module, which needs reference types (all that have
 * those have these), and what nothing calls.
 */
const VAIN = [
  [/\(typeof FinalizationRegistry === 'undefined'\)\s*\? \{.*\}\s*: /g, ""],
  [/^if \(!\('encodeInto' in cachedTextEncoder\)\) \{\n[^]*?^\}\n/gm, ""],
  [/^    if \(realloc === undefined\) \{\n[^]*?^    \}\n/gm, ""],
  [/^if \(Symbol\.dispose\).*\n/gm, ""],
  [/^    (?:__destroy_into_raw|free)\(\) \{\n[^]*?^    \}\n/gm, ""],
  // Strings that cross are short: room for the longest that they may be costs less than a look at each character.
  [
    /^    let len = arg\.length;\n[^]*?^    WASM_VECTOR_LEN = offset;\n/gm,
    `    const room = arg.length * 3;
    let ptr = malloc(room, 1) >>> 0;
    WASM_VECTOR_LEN = cachedTextEncoder.encodeInto(arg, getUint8ArrayMemory0().subarray(ptr, ptr + room)).written;
    if (room) ptr = realloc(ptr, room, WASM_VECTOR_LEN, 1) >>> 0;
`,
  ],
  // A memory that has grown has another buffer.
  [/cachedDataViewMemory0 === null \|\| .*(?=\) \{$)/gm, "cachedDataViewMemory0?.buffer !== wasm.memory.buffer"],
];

/** Rewrites the module and its glue in place; `wasmOpt` is the path of the command. */
export async function shrink(wasm, glue, wasmOpt) {
  await writeFile(wasm, snip(await readFile(wasm)));
  const run = (...passes) => execFileSync(wasmOpt, [...passes, wasm, "-o", wasm], { encoding: "utf8" });
  // The lowest addresses are the far end of the stack: nothing is read from there.
  const flat = ["--flatten", "--rereloop", "-Oz", "-Oz"];
  run("-Oz", "--converge", ...flat, "--low-memory-unused", "--strip-debug", "--strip-producers");
  const names = JSON.parse(run("--minify-imports-and-exports-and-modules", "--reorder-functions", "--strip-target-features"));
  await writeFile(glue, rename(prune(await readFile(glue, "utf8")), names));
}

/** Lets functions of the panic machinery end the program at once. */
function snip(bytes) {
  const module = binaryen.readBinary(bytes);
  let found = 0;
  for (let index = 0; index < module.getNumFunctions(); index += 1) {
    const ref = module.getFunctionByIndex(index);
    const { name, module: imported } = binaryen.getFunctionInfo(ref);
    if (imported || !PANICS.test(name)) continue;
    binaryen.Function(ref).setBody(module.unreachable());
    found += 1;
  }
  if (found === 0) throw new Error("no panic was found: the module has lost its names, or panics have changed theirs");
  const snipped = module.emitBinary();
  module.dispose();
  return snipped;
}

/** Takes out of the glue what is in vain. */
function prune(glue) {
  return VAIN.reduce((text, [vain, instead]) => {
    const pruned = text.replace(vain, instead);
    if (pruned === text) throw new Error(`the glue has changed: it has no ${vain}`);
    return pruned;
  }, glue);
}

/** Gives the glue the names that wasm-opt gave to what the module imports and exports. */
function rename(glue, { imports, exports }) {
  const short = new Map(exports.map(([long, name]) => [`wasm.${long}`, `wasm.${name}`]));
  const renamed = glue
    .replaceAll(/\bwasm\.\w+/g, (member) => short.get(member) ?? member)
    // What the module imports is exported under its short name only.
    .replaceAll(/^export (?=function __wb)(?!function __wbg_set_wasm)/gm, "");
  const list = imports.map(([, long, name]) => `${long} as ${name}`);
  const start = exports.find(([long]) => long === "__wbindgen_start")[1];
  return `${renamed}
export { ${list.join(", ")} };
export const __wbg_start = () => wasm.${start}();
`;
}

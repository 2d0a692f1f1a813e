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

/** Rewrites the module and its glue in place; `wasmOpt` is the path of the command. */
export async function shrink(wasm, glue, wasmOpt) {
  await writeFile(wasm, snip(await readFile(wasm)));
  const run = (...passes) => execFileSync(wasmOpt, [...passes, wasm, "-o", wasm], { encoding: "utf8" });
  // The lowest addresses are the far end of the stack: nothing is read from there.
  run("-Oz", "--converge", "--low-memory-unused", "--strip-debug", "--strip-producers");
  const names = JSON.parse(run("--minify-imports-and-exports-and-modules", "--strip-target-features"));
  await writeFile(glue, rename(await readFile(glue, "utf8"), names));
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

// Builds `dist/` from twine-client (Rust) and `src/` (JavaScript).
//
//   node scripts/build.js            everything
//   node scripts/build.js --bundle   only the JavaScript, on the module that is there
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { literal } from "./literal.js";
import { shrink } from "./shrink.js";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const { version, license } = JSON.parse(await readFile(path("package.json"), "utf8"));

if (!process.argv.includes("--bundle")) await compile();
await bundle();

/** twine-client to WebAssembly and its glue, in `wasm/`. */
async function compile() {
  const options = [
    ...["build", "../twine-client", "--mode", "no-install", "--profile", "wasm", "--target", "bundler"],
    ...["--no-opt", "--no-pack", "--no-typescript", "--out-dir", "../npm/wasm", "--out-name", "core"],
    ...["--", "--no-default-features", "--features", "wasm", "--locked"],
  ];
  // Where scripts/setup puts the tools that npm has no package of.
  const env = { ...process.env, PATH: `${path("../.tools/bin")}:${process.env.PATH}` };
  execFileSync("wasm-pack", options, { cwd: path("."), stdio: "inherit", env });
  await shrink(path("wasm/core_bg.wasm"), path("wasm/core_bg.js"), path("node_modules/.bin/wasm-opt"));
}

async function bundle() {
  await rm(path("dist"), { recursive: true, force: true });
  await mkdir(path("dist"));
  const notice = `/*! twine-client ${version} | ${license} */`;
  const code = literal(await readFile(path("wasm/core_bg.wasm")));
  // The module comes last in its file: texts compress better next to each other.
  await Promise.all([
    // For bundlers, Node, module scripts and workers: one file, the module inside.
    output("entry/inline.js", "dist/twine.js", {
      format: "esm",
      banner: { js: notice },
      footer: { js: `var TWINE_WASM=${code};` },
    }),
    // For a classic script. The BOM keeps the literal intact on a page in another encoding than UTF-8.
    output("entry/global.js", "dist/twine.min.js", {
      format: "iife",
      banner: { js: `\ufeff${notice}\n(()=>{` },
      footer: { js: `var TWINE_WASM=${code};})();` },
    }),
    // For those who serve the module themselves.
    output("entry/slim.js", "dist/slim.js", { format: "esm", banner: { js: notice } }),
    copyFile(path("wasm/core_bg.wasm"), path("dist/twine.wasm")),
    copyFile(path("types/twine.d.ts"), path("dist/twine.d.ts")),
    copyFile(path("types/slim.d.ts"), path("dist/slim.d.ts")),
  ]);
  // The hub serves it as `/twine.js`.
  await copyFile(path("dist/twine.min.js"), path("../twine-hub/assets/twine.js"));
}

function output(entry, outfile, options) {
  return build({
    absWorkingDir: path("."),
    entryPoints: [`src/${entry}`],
    outfile,
    bundle: true,
    minify: true,
    sourcemap: true,
    sourcesContent: true,
    charset: "utf8",
    target: "es2022",
    legalComments: "none",
    ...options,
  });
}

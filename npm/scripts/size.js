// Prints what the package weighs, and fails where `size.json` allows less.
import { readFile } from "node:fs/promises";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const root = new URL("../", import.meta.url);
const budget = JSON.parse(await readFile(new URL("size.json", root), "utf8"));

let over = false;
console.log("file                      raw     gzip   brotli   budget");
for (const [file, limit] of Object.entries(budget)) {
  const raw = await readFile(new URL(file, root));
  const gzip = gzipSync(raw, { level: 9 }).length;
  const brotli = brotliCompressSync(raw, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: raw.length },
  }).length;
  const cells = [raw.length, gzip, brotli, limit].map((n) => String(n).padStart(9));
  console.log(`${file.padEnd(20)}${cells.join("")}${brotli > limit ? "  over budget" : ""}`);
  over ||= brotli > limit;
}
process.exitCode = over ? 1 : 0;

import { brotliCompressSync, constants, gzipSync } from "node:zlib";

/** Bytes of a script as it is, and as a server would send it; compressed as `npm/scripts/size.js` does. */
export function sizes(script) {
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: script.length };
  return {
    raw: script.length,
    gzip: gzipSync(script, { level: 9 }).length,
    brotli: brotliCompressSync(script, { params }).length,
  };
}

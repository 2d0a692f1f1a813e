const ESCAPES = new Map([
  [0x0a, "\\n"],
  [0x0d, "\\r"],
  [0x22, '\\"'],
  [0x5c, "\\\\"],
]);

/**
 * `bytes` as a JavaScript string literal, a character for each byte.
 *
 * It compresses as well as the bytes do, where base64 costs a third more. The file that holds it
 * must be read as UTF-8.
 */
export function literal(bytes) {
  let text = '"';
  for (const [index, byte] of bytes.entries()) text += ESCAPES.get(byte) ?? (byte === 0 ? nul(bytes[index + 1]) : String.fromCharCode(byte));
  return `${text}"`;
}

// `\0` before a digit would be an octal escape.
function nul(next) {
  return next >= 0x30 && next <= 0x39 ? "\\x00" : "\\0";
}

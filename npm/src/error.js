/** What went wrong: `code` for programs, `message` for people. See `types/twine.d.ts`. */
export class TwineError extends Error {
  constructor(code, message, { retryable = false, cause, room } = {}) {
    super(message, { cause });
    this.name = "TwineError";
    this.code = code;
    this.retryable = retryable;
    this.room = room;
  }
}

/** What was thrown, in words. Anything can be thrown, also what has no text. */
export function words(cause) {
  try {
    return `${cause?.message ?? cause}`;
  } catch {
    return "what it threw has no text";
  }
}

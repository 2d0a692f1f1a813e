/** The ids that most messages have, if any. */
const ID = /^[ -~]{1,128}$/;

const isCount = (value) => Number.isSafeInteger(value) && value > 0;

const isText = (value) => typeof (value ?? "") === "string";

/**
 * Whether this is a `message` frame in which nothing is wrong, as far as little effort tells. What is
 * wrong with any other one, if anything, the driver knows.
 */
export function isPlain({ type, offset, time, id, sender, data }) {
  const isMessage = type === "message" && data !== undefined && isCount(offset) && isCount(time);
  return isMessage && isText(sender) && isText(id) && ID.test(id ?? 0);
}

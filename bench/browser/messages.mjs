// What is published, and how fast.

/** Messages of one request in a burst: below the hub's `max_batch` and, of 1 KB each, its `max_body`. */
const BATCH = 500;

/** The machine was too busy for what goes by the clock. */
export class TooBusy extends Error {}

/** How much longer than planned it may take to publish by the clock. */
const LATE = 1.1;

/** One message of about so many bytes as JSON: a few fields, as an app's events have them. */
export function message(n, bytes) {
  const data = { n, user: "u-4711", kind: "moved", x: (n * 37) % 1920, y: 412.5, tags: ["a", "b"], text: "" };
  data.text = "Twine ".repeat(bytes).slice(0, Math.max(0, bytes - JSON.stringify(data).length));
  return data;
}

/** Batch after batch, each as soon as the server has answered the one before. */
export async function burst(server, room, { from, count, bytes }) {
  for (let n = from; n < from + count; n += BATCH) {
    const length = Math.min(BATCH, from + count - n);
    await server.publish(room, Array.from({ length }, (_, i) => message(n + i, bytes)));
  }
}

/** One at a time, by the clock. */
export async function steadily(server, room, { from, count, bytes, rate }) {
  const start = performance.now();
  for (let i = 0; i < count; i += 1) {
    const wait = start + (i * 1000) / rate - performance.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    await server.publish(room, [message(from + i, bytes)]);
  }
  const took = (performance.now() - start) / 1000;
  // Messages that are late come in bursts, and cost less.
  if (took > LATE * (count / rate)) throw new TooBusy(`the machine is too busy to publish ${rate} messages a second`);
}

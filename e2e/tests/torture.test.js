// The hub is killed again and again while backends publish and pages read; in the end every message is
// counted. The same with clients in Rust, and more of it: twine-hub/tests/torture.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { site } from "../support/page.js";
import { Network } from "../support/proxy.js";

const ROUNDS = Number(process.env.TWINE_TORTURE_ROUNDS ?? 6);
const ROOMS = ["red", "green"];
const N_PUBLISHERS = 3;

test("what is acknowledged reaches every page once and in order, whatever is killed and cut", async (t) => {
  const { hub, pages, open } = await site(t, ({ url }) => ({ "/": counting(url) }));
  const network = await Network.to(hub.url);
  t.after(() => network.remove());
  const readers = [];
  for (const way of [hub.url, hub.url, network.url]) {
    const { page } = await open(`${pages.at()}/#${way}`);
    await page.evaluate(() => window.ready);
    readers.push(page);
  }
  const tell = (up) => Promise.all(readers.map((page) => page.evaluate((up) => window.tell(up), up)));

  const ledger = new Ledger();
  const publishers = Array.from({ length: N_PUBLISHERS }, () => publish(hub, ledger));
  for (let round = 0; round < ROUNDS; round += 1) {
    await ledger.more(15 + 5 * round);
    if (round % 2 === 0) {
      network.cut();
      await ledger.more(10);
      network.restore();
      await ledger.more(10);
    }
    await tell(false);
    ledger.goesDown();
    await hub.stop("SIGKILL");
    await hub.resume();
    ledger.comesUp();
    await tell(true);
  }
  ledger.isOver = true;
  await Promise.all(publishers);
  for (const room of ROOMS) await ledger.publish(hub, room, "the last one");

  for (const page of readers) {
    await page.waitForFunction(
      (rooms) => rooms.every((room) => window.got.some(([of, , , data]) => of === room && data === "the last one")),
      ROOMS,
    );
  }
  for (const room of ROOMS) {
    const log = await history(hub, room);
    ledger.check(room, log);
    for (const page of readers) {
      const got = await page.evaluate((room) => window.got.filter(([of]) => of === room), room);
      assert.deepEqual(got.map(([, ...place]) => place), log, room);
    }
  }
  for (const page of readers) assert.deepEqual(await page.evaluate(() => window.gaps), []);
});

/** A page that keeps what it gets, and tries at once to come back while it knows that the hub is up. */
const counting = (hub) => `<!doctype html>
<script src="${hub}/twine.js"></script>
<script>
  let isUp = true;
  const comeBack = () => isUp && dispatchEvent(new Event("online"));
  window.tell = (up) => { isUp = up; comeBack(); };
  window.got = [];
  window.gaps = [];
  const twine = new Twine(location.hash.slice(1));
  twine.on("error", () => {});
  twine.on("gap", (gap) => gaps.push(gap));
  twine.on("state", ({ state }) => state === "reconnecting" && comeBack());
  window.ready = Promise.all(${JSON.stringify(ROOMS)}.map((room) =>
    twine.subscribe(room, (data, { epoch, offset }) => got.push([room, epoch, offset, data]))));
</script>`;

/** Publishes one message after the other, each until it is acknowledged. */
async function publish(hub, ledger) {
  for (let n = 0; !ledger.isOver; n += 1) await ledger.publish(hub, ROOMS[n % ROOMS.length], randomUUID());
}

/** What was acknowledged, and where. */
class Ledger {
  isOver = false;
  #acknowledged = [];
  #waiting = [];
  #up = Promise.resolve();
  comesUp = () => {};

  goesDown() {
    this.#up = new Promise((resolve) => (this.comesUp = resolve));
  }

  /** Waits until so many more are acknowledged. */
  more(n) {
    const at = this.#acknowledged.length + n;
    return new Promise((resolve) => this.#waiting.push({ at, resolve }));
  }

  /** Publishes a message, as often as it takes, under one id. */
  async publish(hub, room, data) {
    const id = randomUUID();
    for (;;) {
      await this.#up;
      try {
        const answer = await fetch(`${hub.url}/api/publish`, {
          method: "POST",
          headers: { authorization: `Bearer ${hub.key}`, "content-type": "application/json" },
          body: JSON.stringify({ room, data, id }),
        });
        const { epoch, offset } = await answer.json();
        assert.equal(answer.status, 200);
        this.#acknowledged.push({ room, place: [epoch, offset, data] });
        break;
      } catch (error) {
        // Nothing came back, or not all: it may be stored or not.
        if (error instanceof assert.AssertionError) throw error;
      }
    }
    const ready = this.#waiting.filter(({ at }) => at <= this.#acknowledged.length);
    this.#waiting = this.#waiting.filter((one) => !ready.includes(one));
    for (const { resolve } of ready) resolve();
  }

  /** The hub has what it has acknowledged, where it said, and nothing else. */
  check(room, log) {
    const told = this.#acknowledged.filter(({ room: of }) => of === room).map(({ place }) => place);
    const order = ([one], [other]) => (one < other ? -1 : one > other ? 1 : 0);
    told.sort((one, other) => order(one, other) || one[1] - other[1]);
    assert.deepEqual(log, told);
    for (const [index, [epoch, offset]] of log.entries()) {
      const before = log[index - 1];
      assert.equal(offset, before?.[0] === epoch ? before[1] + 1 : 1, "offsets are dense");
    }
  }
}

/** All that the hub holds of a room, page by page. */
async function history(hub, room) {
  const log = [];
  for (let [epoch, after] = ["", 0]; ; [epoch, after] = log.at(-1)) {
    const query = new URLSearchParams({ epoch, after, limit: 1000 });
    const answer = await fetch(`${hub.url}/api/rooms/${room}/messages?${query}`, {
      headers: { authorization: `Bearer ${hub.key}` },
    });
    const { messages } = await answer.json();
    if (messages.length === 0) return log;
    log.push(...messages.map(({ epoch, offset, data }) => [epoch, offset, data]));
  }
}

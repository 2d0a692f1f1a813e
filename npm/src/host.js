import { fetchCookie } from "./cookie.js";
import { TwineError, words } from "./error.js";

/** The subprotocol of this version of the wire. */
const PROTOCOL = "twine.v1.json";

/** The longest scope that a hub takes. */
export const SCOPE_BYTES = 1024;

/** What the client's own errors mean. The hub's come with their own words. */
export const MEANINGS = {
  bad_room: "a room's name has 1 to 255 bytes of UTF-8 without control characters",
  bad_position: "a position has an epoch as a hub gave it and an offset from 0 to 2^53 - 1",
  withdrawn: "the room was unsubscribed before it was subscribed",
  already_subscribed: "the room is subscribed from another position: unsubscribe it first",
  closed: "the client was closed before the call was complete",
  bad_history: "a history is a whole number from 0 to 2^32 - 1",
  too_many_rooms: "a client holds at most 10,000 rooms",
  too_many_calls: "at most 10,000 calls may wait for the hub",
  garbled: "the hub sent something that is no frame of this protocol: ",
};

/**
 * What the driver (`twine-client/src/wasm/host.rs`) asks of the page.
 *
 * Nothing in here throws: an exception would unwind through the driver's frames.
 */
export class Host {
  #addresses;
  #options;
  #rooms;
  #raise;
  #driver;

  /** `raise(type, event)` tells the app; `rooms` has each room's listeners. */
  constructor(addresses, options, rooms, raise) {
    this.#addresses = addresses;
    this.#options = options;
    this.#rooms = rooms;
    this.#raise = raise;
  }

  /** Starts a driver that calls this host. */
  drive({ Driver }) {
    // A path may be longer than the hub takes. It is ASCII, so that characters are bytes.
    const { scope = globalThis.location?.pathname.slice(0, SCOPE_BYTES), token } = this.#options;
    this.#driver = new Driver(weakly(this), instance(), scope, token, Math.random());
    return this.#driver;
  }

  open() {
    const WebSocket = this.#options.WebSocket ?? globalThis.WebSocket;
    try {
      const socket = new WebSocket(this.#addresses.socket, PROTOCOL);
      // For as long as there is a socket: Node ends a process at an `error` that nobody handles.
      socket.onerror = () => {};
      return socket;
    } catch (cause) {
      const message = WebSocket
        ? `the page may not connect to ${this.#addresses.socket}: ${words(cause)}`
        : "there is no WebSocket here: pass one as option `WebSocket`";
      this.#raise("error", new TwineError("socket_failed", message, { retryable: true, cause }));
    }
  }

  fetchCookie() {
    const fetch = this.#options.fetch ?? globalThis.fetch;
    fetchCookie(fetch, this.#addresses.cookie).then(() => this.#driver.cookieSettled());
  }

  deliver(frame, epoch, recovered) {
    const { room, offset, time, id, sender, data } = frame;
    const message = { room, epoch, offset, time, id: id ?? undefined, sender: sender ?? undefined, recovered };
    const pending = this.#rooms.get(room)?.listeners.call([data, message], (error) => this.#report(error, room)) ?? [];
    if (pending.length === 0) return false;
    Promise.all(pending).then(() => this.#driver.settled(room, epoch, offset));
    return true;
  }

  state(state, delay, reason, code, message) {
    this.#raise("state", { state, delay, reason, code, message });
  }

  gap(room, fromEpoch, fromOffset, toEpoch, toOffset, count, reason) {
    const from = { epoch: fromEpoch, offset: fromOffset };
    const to = { epoch: toEpoch, offset: toOffset };
    this.#raise("gap", { room, from, to, count, reason });
  }

  subscribed(call, epoch, offset, recovered) {
    call.resolve({ room: call.room, epoch, offset, recovered });
  }

  unsubscribed(call) {
    call.resolve();
  }

  failed(call, code, detail, retryable, room) {
    const message = `${MEANINGS[code] ?? ""}${detail ?? ""}` || code;
    const error = new TwineError(code, message, { retryable, room });
    if (call) call.reject(error);
    else this.#raise("error", error);
  }

  #report(cause, room) {
    globalThis.reportError?.(cause);
    const message = `a listener of room ${room} failed: ${words(cause)}`;
    this.#raise("error", new TwineError("listener_failed", message, { cause, room }));
  }
}

/**
 * `host`, without keeping it: what the driver holds is a root of the engine's garbage collector, and
 * with a host there would live its client, for ever.
 */
function weakly(host) {
  const get = (ref, method) => (...values) => ref.deref()?.[method](...values);
  return new Proxy(new WeakRef(host), { get });
}

/** A name for this object, as random as the engine can. `randomUUID` is for secure pages only. */
function instance() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

import { askForCookie } from "./cookie.js";
import { TwineError, words } from "./error.js";
import { isPlain } from "./plain.js";
import { Tab, checkStorage } from "./tab.js";

/** The subprotocol of this version of the wire. */
const PROTOCOL = "twine.v1.json";

/** The parameter of the socket's address for what is said with its handshake (PROTOCOL.md, "Early frames"). */
const EARLY = "?early=";

/** What base64 has in an address in place of these. */
const BASE64URL = { "+": "-", "/": "_", "=": "" };

/** Bytes of frames at most: as base64, and with what proxies add, a request's head stays below what servers take. */
const EARLY_BYTES = 1536;

/** The longest scope that a hub takes. */
export const SCOPE_BYTES = 1024;

/** An `error` of a socket: a `close` follows, and says more. Node ends a process at one that nobody handles. */
const ignore = () => {};

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
  forget_failed: "the hub could not be told to forget this browser: call `forget` again before you connect: ",
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
  #socket;
  #isOpen = false;
  /** Texts for a socket that is not open. */
  #unsent = [];
  #timer;
  /** That of the last message. */
  #epoch;
  #instance = instance();
  #scope;
  tab;

  /** `raise(type, event)` tells the app; `rooms` has each room's listeners. */
  constructor(addresses, options, rooms, raise) {
    this.#addresses = addresses;
    this.#options = options;
    this.#rooms = rooms;
    this.#raise = raise;
    // A path may be longer than the hub takes. It is ASCII, so that characters are bytes.
    const { scope = globalThis.location?.pathname.slice(0, SCOPE_BYTES), name, storage = "session" } = options;
    checkStorage(storage);
    this.#scope = scope;
    this.tab = new Tab(storage, addresses.socket, [scope, name], () => this.#save());
  }

  /** Starts a driver that calls this host. */
  drive({ Driver }) {
    const { session, prev } = this.tab;
    const { token } = this.#options;
    const left = [session, prev].map((id) => `${id ?? ""}`);
    this.#driver = new Driver(weakly(this), this.#instance, ...left, this.#scope, token, Math.random());
    return this.#driver;
  }

  /** The driver is about to be told of a room: then it has to know where an earlier client was. */
  restore(room) {
    const at = this.tab.take(room);
    if (at) this.#driver.restore(room, `${at.epoch}`, at.offset);
  }

  /** The hub forgets all sessions of this browser, and this tab what it has stored. */
  forget() {
    this.#driver?.forget();
    this.tab.forget();
    return askForCookie(this.#fetch, this.#addresses.cookie, "DELETE").catch((cause) => {
      throw new TwineError("forget_failed", `${MEANINGS.forget_failed}${words(cause)}`, { retryable: true, cause });
    });
  }

  open(early) {
    const WebSocket = this.#options.WebSocket ?? globalThis.WebSocket;
    try {
      const socket = (this.#socket = new WebSocket(this.#addresses.socket + (early ? this.#early() : ""), PROTOCOL));
      socket.onopen = () => {
        this.#isOpen = true;
        for (const text of this.#unsent.splice(0)) socket.send(text);
        this.#driver.opened();
      };
      socket.onmessage = ({ data }) => this.#received(data);
      socket.onclose = ({ code, reason }) => {
        this.#dropSocket();
        this.#driver.closed(code, reason);
      };
      socket.onerror = ignore;
      return true;
    } catch (cause) {
      this.#dropSocket();
      const message = WebSocket
        ? `the page may not connect to ${this.#addresses.socket}: ${words(cause)}`
        : "there is no WebSocket here: pass one as option `WebSocket`";
      this.#raise("error", new TwineError("socket_failed", message, { retryable: true, cause }));
      return false;
    }
  }

  send(text) {
    if (this.#isOpen) this.#socket.send(text);
    else this.#unsent.push(text);
  }

  close(code) {
    const socket = this.#dropSocket();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  timer(delay) {
    clearTimeout(this.#timer);
    this.#timer = delay === undefined ? undefined : setTimeout(() => this.#driver.timer(), delay);
  }

  fetchCookie() {
    // Whoever can't have the cookie (blocked, hub down) connects without, and recovers by its own cursors.
    const settled = () => this.#driver.cookieSettled();
    askForCookie(this.#fetch, this.#addresses.cookie).then(settled, settled);
  }

  moved() {
    this.tab.moved();
  }

  store(session, pong) {
    this.tab.store(session, JSON.parse(pong).cursors ?? {});
  }

  deliver(frame, epoch, recovered, delivery) {
    const { room, offset, time, id, sender, data } = frame;
    this.#epoch = epoch ??= this.#epoch;
    const message = { room, epoch, offset, time, id: id ?? undefined, sender: sender ?? undefined, recovered };
    const pending = this.#rooms.get(room)?.listeners.call([data, message], (error) => this.#report(error, room)) ?? [];
    if (pending.length === 0) return false;
    Promise.all(pending).then(() => this.#driver.settled(room, delivery));
    return true;
  }

  state(state, delay, reason, code, message) {
    if (state === "connected") this.tab.prev = this.#instance;
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

  /**
   * As much of what is unsent as the socket's address has room for: each a line of its parameter. Servers write
   * addresses into their logs, where no token belongs.
   */
  #early() {
    let bytes = [];
    for (const text of this.#unsent.splice(0)) {
      const more = [...bytes, ...new TextEncoder().encode(`${text}\n`)];
      if (this.#unsent.length || more.length > EARLY_BYTES || text.includes('"token":')) this.#unsent.push(text);
      else bytes = more;
    }
    return bytes.length ? EARLY + btoa(String.fromCharCode(...bytes)).replace(/\W/g, (c) => BASE64URL[c]) : "";
  }

  /** Lets go of the socket, and of what was meant for it. */
  #dropSocket() {
    const socket = this.#socket;
    this.#socket = undefined;
    this.#isOpen = false;
    this.#unsent = [];
    return socket;
  }

  #received(data) {
    let frame;
    try {
      if (typeof data === "string") frame = JSON.parse(data);
    } catch {
      frame = null;
    }
    const room = this.#rooms.get(frame?.room)?.handle ?? 0;
    this.#driver.received(frame, room, isPlain(frame ?? {}) ? frame.offset : 0);
  }

  get #fetch() {
    return this.#options.fetch ?? globalThis.fetch;
  }

  #save() {
    if (this.#driver) this.#driver.save();
    else this.tab.store(this.tab.session, {});
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
  const ref = new WeakRef(host);
  const weak = (method) => [method, (...values) => ref.deref()?.[method](...values)];
  return Object.fromEntries(Object.getOwnPropertyNames(Host.prototype).map(weak));
}

/** A name for this object, as random as the engine can. `randomUUID` is for secure pages only. */
function instance() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

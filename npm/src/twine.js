import { addresses } from "./address.js";
import { engine } from "./engine.js";
import { TwineError, words } from "./error.js";
import { Host, MEANINGS, SCOPE_BYTES } from "./host.js";
import { Listeners, checkListener } from "./listeners.js";
import { isPage, watchPage } from "./page.js";
import { Room } from "./room.js";

/** What calls reject with when the app itself has ended what they waited for. */
const EXPECTED = ["closed", "disconnected", "withdrawn"];

const closed = () => new TwineError("closed", MEANINGS.closed);

/** The clients that are not closed: nothing else keeps one that the app let go of. */
const open = new Set();

/**
 * A connection to a hub. See `types/twine.d.ts`.
 *
 * What decides is the driver (twine-client in Rust); this class is its face. Until the module is
 * compiled there is no driver, and calls wait in `#early`.
 */
export class Twine {
  #options;
  #host;
  #driver;
  #starting = false;
  /** Whether the app wants a connection. */
  #wanted = false;
  /** How often the app has ended that. */
  #ends = 0;
  #early = [];
  #rooms = new Map();
  /** Handles of rooms that are no more. */
  #handles = [];
  #state = "idle";
  #events = { state: new Listeners(), gap: new Listeners(), error: new Listeners() };
  #unwatch;
  /** Settles when the hub has been told to forget, while that is under way. */
  #forgetting;
  /** Whether to connect again after that. */
  #again = false;
  /** Why there is no module. */
  #fault;
  /** The errors that were events: one may end several calls. */
  #told = new WeakSet();

  constructor(url, options = {}) {
    if (new TextEncoder().encode(options.scope).length > SCOPE_BYTES) throw new TypeError("a scope has at most 1,024 bytes");
    this.#options = options;
    this.#host = new Host(addresses(url), options, this.#rooms, (type, event) => this.#raise(type, event));
    if (options.autoConnect ?? isPage()) this.#connect();
  }

  get state() {
    return this.#state;
  }

  connect(options = {}) {
    // A connection that is made sooner would be that of whoever has left.
    if (this.#forgetting) {
      const ends = this.#ends;
      return this.#quiet(
        this.#forgetting.then(() => {
          if (ends !== this.#ends) throw closed();
          return this.connect(options);
        }),
      );
    }
    const { signal } = options;
    if (signal?.aborted) return this.#quiet(Promise.reject(signal.reason));
    const connected = this.#wanted && this.#state === "connected";
    this.#connect();
    if (connected) return Promise.resolve();
    return this.#quiet(
      new Promise((resolve, reject) => {
        const settled = new AbortController();
        const until = { signal: settled.signal };
        const settle = (done, value) => {
          settled.abort();
          done(value);
        };
        this.on("state", ({ state, reason, message }) => {
          if (state === "connected") settle(resolve);
          // The end of what a listener disconnected just before it connected anew is yet to be told.
          const earlier = reason === "disconnected" && this.#wanted;
          if (state === "closed" && !earlier) settle(reject, this.#fault ?? new TwineError(reason, message ?? MEANINGS.closed));
        }, until);
        signal?.addEventListener("abort", () => {
          settle(reject, signal.reason);
          this.disconnect();
        }, until);
      }),
    );
  }

  forget() {
    const again = this.#wanted || this.#again;
    this.disconnect();
    this.#again = again;
    for (const { call } of this.#early.splice(0)) call.reject(closed());
    for (const [name, room] of this.#rooms) {
      room.release();
      this.#tidy(name);
    }
    const told = (this.#forgetting = this.#host.forget().finally(() => {
      if (this.#forgetting === told) this.#forgetting = undefined;
    }));
    return this.#quiet(
      told.then(() => {
        if (this.#again && !this.#forgetting) this.#connect();
      }),
    );
  }

  disconnect() {
    this.#wanted = this.#again = false;
    this.#ends += 1;
    if (this.#driver) this.#driver.disconnect();
    else if (this.#starting) this.#raise("state", { state: "closed", reason: "disconnected" });
  }

  subscribe(name, options, listener) {
    if (typeof options === "function") return this.subscribe(name, undefined, options);
    const { after, history, token, signal } = options ?? {};
    if (listener) checkListener(listener);
    if (signal?.aborted) return this.#quiet(Promise.reject(signal.reason));
    const room = this.#room(name);
    const hold = room.hold();
    const held = { signal: hold.signal };
    if (listener) room.listeners.add(listener, held);
    // The driver would take these for other numbers, and for no position.
    const wrong =
      history !== undefined && history !== history >>> 0
        ? "bad_history"
        : after && (typeof after.epoch !== "string" || !Number.isSafeInteger(after.offset)) && "bad_position";
    const call = this.#call(name, (driver, call) =>
      wrong
        ? this.#host.failed(call, wrong, undefined, false, name)
        : driver.subscribe(call, name, after?.epoch, after?.offset, history, token),
    );
    const give = () => {
      const last = room.letGo(hold);
      this.#tidy(name);
      return last;
    };
    signal?.addEventListener("abort", () => {
      call.reject(signal.reason);
      const last = give();
      if (!this.#driver) this.#early = this.#early.filter((early) => early.call !== call);
      else if (last) this.unsubscribe(name);
      else this.#driver.withdraw(call);
    }, held);
    call.promise.catch(give);
    return call.promise;
  }

  unsubscribe(name) {
    this.#room(name).release();
    this.#tidy(name);
    return this.#call(name, (driver, call) => driver.unsubscribe(call, name)).promise;
  }

  listenOn(name, listener, { signal } = {}) {
    checkListener(listener);
    const undo = this.#room(name).listeners.add(listener, { signal });
    this.#tidy(name);
    return undo;
  }

  on(type, listener, options) {
    return this.#listeners(type).add(listener, options);
  }

  once(type, listener, options) {
    return this.on(type, listener, { ...options, once: true });
  }

  off(type, listener) {
    this.#listeners(type).remove(listener);
  }

  #connect() {
    this.#wanted = true;
    if (this.#driver) return this.#driver.connect();
    this.#raise("state", { state: "connecting" });
    if (this.#starting) return;
    this.#starting = true;
    this.#fault = undefined;
    engine(this.#options.wasm).then((glue) => this.#start(glue), (error) => this.#fail(error));
  }

  #start(glue) {
    this.#driver = this.#host.drive(glue);
    for (const [name, room] of this.#rooms) if (room.listeners.size > 0) this.#driverFor(name).listening(name, room.handle, true);
    for (const { begin, call } of this.#early.splice(0)) begin(this.#driverFor(call.room), call);
    // A client that was disconnected meanwhile still has its calls answered.
    if (this.#wanted) this.#driver.connect();
    else this.#driver.disconnect();
  }

  /** There is no module, and so no client until the app connects again. */
  #fail(error) {
    this.#starting = false;
    this.#fault = error;
    for (const { call } of this.#early.splice(0)) call.reject(error);
    this.#raise("error", error);
    this.#raise("state", { state: "closed", reason: error.code, message: error.message });
  }

  /** A call that completes later. `begin` hands it to the driver, now or when there is one. */
  #call(room, begin) {
    const call = { room };
    call.promise = this.#quiet(new Promise((resolve, reject) => Object.assign(call, { resolve, reject })));
    if (this.#driver) begin(this.#driverFor(room), call);
    else this.#early.push({ begin, call });
    return call;
  }

  /** A rejection is told as an event too, so that one that nobody awaits harms no one. */
  #quiet(promise) {
    // What the app's own signal aborted is no news to it.
    promise.catch((error) => error instanceof TwineError && this.#raise("error", error));
    return promise;
  }

  /** The driver, if there is one; it knows from now on where an earlier client was in the room. */
  #driverFor(room) {
    if (this.#driver) this.#host.restore(room);
    return this.#driver;
  }

  #room(name) {
    if (typeof name !== "string") throw new TypeError("a room's name is a string");
    let room = this.#rooms.get(name);
    if (!room) {
      room = new Room((listening) => {
        this.#driverFor(name)?.listening(name, room.handle, listening);
        this.#tidy(name);
      });
      // Without any that are free, those in use are 1, 2, 3 and so on.
      room.handle = this.#handles.pop() ?? this.#rooms.size + 1;
      this.#rooms.set(name, room);
    }
    return room;
  }

  #tidy(name) {
    const room = this.#rooms.get(name);
    if (!room?.isUnused) return;
    this.#rooms.delete(name);
    this.#handles.push(room.handle);
  }

  #listeners(type) {
    const listeners = Object.hasOwn(this.#events, type) && this.#events[type];
    if (!listeners) throw new TypeError(`there is no event ${type}: there are state, gap and error`);
    return listeners;
  }

  #raise(type, event) {
    if (type === "state") {
      // The client is connecting as soon as its module is being compiled; then the driver says so too.
      if (event.state === this.#state && event.state !== "reconnecting") return;
      this.#state = event.state;
      this.#watch(event.state !== "closed");
    }
    if (type === "error" && this.#told.has(event)) return;
    this.#told.add(event);
    const listeners = this.#events[type];
    if (type === "error" && listeners.size === 0 && !EXPECTED.includes(event.code)) console.warn(event);
    listeners.call([event], (cause) => {
      globalThis.reportError?.(cause);
      const message = `a listener of event ${type} failed: ${words(cause)}`;
      if (type !== "error") this.#raise("error", new TwineError("listener_failed", message, { cause }));
    });
  }

  #watch(watching) {
    if (!watching) {
      this.#unwatch?.();
      this.#unwatch = undefined;
      this.#host.tab.close();
      open.delete(this);
    } else if (!this.#unwatch) {
      open.add(this);
      this.#host.tab.open();
      this.#unwatch = watchPage(() => this.#driver?.wake(), (forGood) => this.#leave(forGood));
    }
  }

  /** The page is hidden, or about to go. */
  #leave(forGood) {
    if (forGood) this.#driver?.acknowledge();
    this.#host.tab.leave(forGood);
  }
}

/**
 * A connection to a Twine hub: messages of rooms, once and in order, across lost connections.
 *
 * ```js
 * import { Twine } from "twine-client";
 *
 * const twine = new Twine("https://rt.example.com");
 * twine.subscribe("chat", (data) => console.log(data));
 * ```
 *
 * Each object has its own connection, rooms and listeners; several in a page, or in a page and its
 * frames, share only the tab's storage.
 */
export declare class Twine {
  /**
   * Returns at once. In a page and in a web worker it connects by itself; elsewhere (on a server that
   * renders the page, say) it stays `idle` until {@link Twine.connect}. Calls wait until there is a
   * connection.
   *
   * @param url The hub's address, like `https://rt.example.com`; in a page it may be relative to it.
   * @throws TypeError where `url` is no address of a hub, or an option is none.
   */
  constructor(url: string | URL, options?: TwineOptions);

  /** How the connection stands: what the last `state` event said. */
  readonly state: State;

  /**
   * Connects; where the next attempt is being waited for, at once. Without effect while connected.
   *
   * Resolves when the hub has answered, and rejects when the client is closed before that: while a
   * hub can't be reached it goes on trying. Aborting disconnects.
   */
  connect(options?: { signal?: AbortSignal }): Promise<void>;

  /**
   * Ends the connection and stays away until {@link Twine.connect}. Rooms that were subscribed come
   * back with the connection, from where they were.
   */
  disconnect(): void;

  /**
   * The user has logged out: ends all subscriptions, forgets session and positions, in this tab's storage
   * too, has the hub forget all sessions of this browser, and connects anew where it was connected.
   * Listeners that {@link Twine.listenOn} and {@link Twine.on} added stay.
   *
   * Resolves when the hub has forgotten. Where it can't be told (offline), all is forgotten here, the
   * client stays `closed`, and this rejects with `forget_failed`: call it again before you connect, for
   * the hub may take whoever connects for the one who has left. A page that is reloaded then has to make
   * its client with `autoConnect: false`, and to begin with this.
   *
   * Warning: other tabs that are open keep what they have. Other clients of this tab keep it in memory,
   * also in pages of the back/forward cache, but store nothing until they forget as well. One that
   * forgets later takes along what the others have got since, so have all of a page do it at once:
   * `await Promise.all(clients.map((twine) => twine.forget()))`.
   */
  forget(): Promise<void>;

  /**
   * Subscribes a room, now or as soon as there is a connection. Resolves when the hub has agreed.
   *
   * `listener` gets the room's messages for as long as this subscription lasts. A room without any
   * listener is not read past its cursor: when one comes, delivery goes on from there.
   */
  subscribe<Data = unknown>(room: string, listener: Listener<Data>): Promise<Subscription>;
  subscribe<Data = unknown>(
    room: string,
    options?: SubscribeOptions,
    listener?: Listener<Data>,
  ): Promise<Subscription>;

  /**
   * Ends a room's subscription, for all who made it: nothing of the room is delivered after this
   * call. Listeners that {@link Twine.listenOn} added stay, for the next subscription. Resolves when
   * the hub has agreed, and at once where there is nothing to end.
   */
  unsubscribe(room: string): Promise<void>;

  /**
   * Adds a listener for a room's messages, whoever subscribes it. A room may have several; the same
   * function may be added more than once.
   *
   * A listener may do anything: call any method, throw, or return a promise. What it throws becomes
   * an `error` event, and the other listeners run all the same.
   *
   * @returns Removes this listener again.
   */
  listenOn<Data = unknown>(
    room: string,
    listener: Listener<Data>,
    options?: { signal?: AbortSignal },
  ): () => void;

  /**
   * Adds a listener for what happens to the client.
   *
   * @returns Removes it again.
   */
  on<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => unknown, options?: { signal?: AbortSignal }): () => void;

  /** As {@link Twine.on}, for one event. */
  once<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => unknown, options?: { signal?: AbortSignal }): () => void;

  /** Removes a listener that {@link Twine.on} or {@link Twine.once} added. */
  off<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => unknown): void;
}

/** How a client is set up. */
export interface TwineOptions {
  /** Whether to connect by itself. By default in a page and in a web worker. */
  autoConnect?: boolean;
  /**
   * Keeps sessions and stored positions of one origin apart; at most 1,024 bytes. By default the page's
   * path, cut to that. A page that changes its path without loading should name one scope for all; so
   * should one whose path is a secret, for the address of the socket has it.
   */
  scope?: string;
  /**
   * Where the client keeps its session and its positions, so that a page that is reloaded goes on where it
   * was: `session` (the default) is the tab's `sessionStorage`, `none` is memory alone, and an object like
   * `sessionStorage` is used in its place; it must be of one tab only. Up to 1,000 rooms are kept, those of
   * earlier pages going first. Where it is blocked, full, or there is no page (workers, Node), the client
   * keeps to memory.
   */
  storage?: "session" | "none" | StorageLike;
  /**
   * Tells several clients of one page apart, so that each finds its own after a reload. Without it, the
   * second client of the same hub and scope keeps to memory for as long as the first is not closed.
   */
  name?: string;
  /** A token for the connection, where the hub asks for one. */
  token?: string;
  /** The WebSocket class; by default the global one, which Node 20 lacks (pass `ws`'s). */
  WebSocket?: new (url: string, protocol: string) => WebSocketLike;
  /** What fetches the hub's cookie; by default the global `fetch`. */
  fetch?: typeof globalThis.fetch;
}

/** What a client needs of a storage. */
export type StorageLike = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** What a client needs of a WebSocket. */
export interface WebSocketLike {
  onopen: unknown;
  onmessage: unknown;
  onclose: unknown;
  onerror: unknown;
  send(data: string): void;
  close(code?: number): void;
}

/** What to ask for when a room is subscribed. */
export interface SubscribeOptions {
  /**
   * Deliver what comes after this position, as a {@link Message} has it; it goes before one that an earlier
   * page has stored. Where the room is subscribed from
   * another position already, the call fails with `already_subscribed`: a room has one, whoever listens.
   */
  after?: Position;
  /**
   * Start with the last so many messages, if that is earlier than where delivery would start. All listeners
   * of the room get them, also those that had them.
   */
  history?: number;
  /** A token for this room, where the hub asks for one. */
  token?: string;
  /**
   * Aborting takes the listener off; it ends the subscription if no other call of `subscribe` holds
   * it. While the call waits for the hub, it rejects with the signal's reason.
   */
  signal?: AbortSignal;
}

/** Takes a message: its payload, and what else is known of it. */
export type Listener<Data = unknown> = (data: Data, message: Message) => unknown;

/** What is known of a message, besides its payload. */
export interface Message extends Position {
  /** The room. */
  room: string;
  /** When the hub took it, in milliseconds since 1970-01-01 UTC. */
  time: number;
  /** The id that its publisher gave it, if any. */
  id?: string;
  /** Who published it, where known. */
  sender?: string;
  /** Whether it was caught up (after a lost connection, or as history), and is not live. */
  recovered: boolean;
}

/** A place in a room's log. */
export interface Position {
  /** Which incarnation of the log. */
  epoch: string;
  /** Which message of it: 1, 2, 3 and so on; 0 is before the first. */
  offset: number;
}

/** A subscription that is in force. Delivery goes on after its position. */
export interface Subscription extends Position {
  /** The room. */
  room: string;
  /** Whether nothing is known to be lost; `undefined` where there was nothing to recover from. */
  recovered?: boolean;
}

/** How a connection stands. */
export type State = "idle" | "connecting" | "connected" | "reconnecting" | "closed";

/** What happens to a client. */
export interface Events {
  /** The state has changed. */
  state: StateEvent;
  /** Messages are lost for this client: they can no longer be delivered. */
  gap: GapEvent;
  /** Something went wrong: what a call rejects with, what a listener threw, what the hub said. */
  error: TwineError;
}

/** The state has changed. */
export type StateEvent =
  | { state: "connecting" | "connected" }
  /** The connection is lost, or could not be made. */
  | {
      state: "reconnecting";
      /** Milliseconds until the next attempt. */
      delay: number;
    }
  /** Only {@link Twine.connect} starts again. */
  | {
      state: "closed";
      /**
       * `disconnected`: by the app. `refused`: by the hub, in a way that would repeat. `wasm_blocked`:
       * the page's policy lacks `'wasm-unsafe-eval'`. `wasm_unsupported`: the engine is too old.
       * `wasm_missing`: the module could not be loaded.
       */
      reason: "disconnected" | "refused" | "wasm_blocked" | "wasm_unsupported" | "wasm_missing";
      /** The WebSocket's close code, where the hub refused. */
      code?: number;
      /** What went wrong and what to do, for people. */
      message?: string;
    };

/** Messages are lost for this client. */
export interface GapEvent {
  /** The room. */
  room: string;
  /** The last position before the loss. */
  from: Position;
  /** The last lost position; delivery goes on after it. */
  to: Position;
  /** How many messages, where known. */
  count?: number;
  /** Older than the hub keeps them; more than it recovers; or at a position that it doesn't know. */
  reason: "expired" | "limit" | "unknown";
}

/** What went wrong. */
export declare class TwineError extends Error {
  /** For programs: a code of the protocol (docs/PROTOCOL.md, "Errors"), or one of the client's own. */
  readonly code: string;
  /** Whether the same may succeed later, unchanged. */
  readonly retryable: boolean;
  /** The room it is about, where it is about one. */
  readonly room?: string;
  /** What caused it: what a listener threw, say. */
  readonly cause?: unknown;
}

/** Rooms whose position is stored; those that only earlier pages had go first. */
const ROOMS = 1000;

/** The longest that a page which is seen waits before it stores, in milliseconds. */
const DELAY = 250;

/** The keys that clients of this page are at, of each storage. */
const taken = new WeakMap();

/** @throws TypeError where `storage` is none. */
export function checkStorage(storage) {
  if (storage !== "session" && storage !== "none" && typeof storage?.setItem !== "function") {
    throw new TypeError("storage is `session`, `none` or like sessionStorage");
  }
}

/**
 * What a client leaves to the one after it in its tab: the session, and positions in rooms.
 *
 * Nothing in here throws: where storage is blocked or full, what a page knew goes with it.
 */
export class Tab {
  /** The session that an earlier client was in. */
  session;
  /** The client to take that over from: the one before this, and from its own connection on this one. */
  prev;
  /** Where earlier clients were in rooms that this page has not named yet. */
  cursors = new Map();
  /** None where nothing is to be stored, or can be. */
  #storage;
  /** What the keys of all this hub's clients begin with. */
  #hub;
  #key;
  /** What whoever forgot last had left at `#hub` when this was read: null where nobody had. */
  #mark;
  #save;
  #isOpen;
  #isLeaving;
  #timer;

  /** `save` calls `store` with what there is to be stored. */
  constructor(storage, hub, parts, save) {
    this.#hub = `twine ${hub} `;
    this.#key = this.#hub + JSON.stringify([...parts, place()]);
    this.#save = save;
    attempt(() => {
      // Elsewhere it is that of a whole process, or lasts longer than a tab.
      if (storage === "session") this.#storage = globalThis.document && globalThis.sessionStorage;
      else if (storage !== "none") this.#storage = storage;
    });
  }

  /** Takes up what was left here. While another client of the page is at it, this one keeps to memory. */
  open() {
    if (!this.#storage || this.#isOpen) return;
    const keys = taken.get(this.#storage) ?? new Set();
    if (keys.has(this.#key)) return;
    taken.set(this.#storage, keys.add(this.#key));
    this.#isOpen = true;
    // A client that comes back knows better than what it left.
    if (this.#mark === undefined) {
      attempt(() => {
        this.#mark = this.#storage.getItem(this.#hub);
        const { session, prev, cursors, mark } = JSON.parse(this.#storage.getItem(this.#key));
        if (!this.#isForgotten(mark)) Object.assign(this, { session, prev, cursors: new Map(cursors) });
      });
    }
    // Without `prev`: a copy of the tab must not take over what this client has.
    this.leave(false);
  }

  /** Leaves everything to the next client. */
  close() {
    if (!this.#isOpen) return;
    this.leave();
    taken.get(this.#storage).delete(this.#key);
    this.#isOpen = false;
  }

  /** There is something else to store. */
  moved() {
    if (!this.#isOpen) return;
    // Hidden pages end without a word.
    if (this.#isLeaving || globalThis.document?.hidden) this.#save();
    else this.#timer ??= setTimeout(this.#save, DELAY);
  }

  /** The page is about to go, or to be hidden: stores what there is. */
  leave(isLeaving = true) {
    this.#isLeaving = isLeaving;
    this.#save();
  }

  store(session, cursors) {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#isOpen || this.#isForgotten(this.#mark)) return;
    const all = [...this.cursors, ...Object.entries(cursors)].slice(-ROOMS);
    const left = JSON.stringify({ mark: this.#mark, session, prev: this.#isLeaving ? this.prev : undefined, cursors: all });
    const remove = () => this.#storage.removeItem(this.#key);
    attempt(session || all[0] ? () => this.#storage.setItem(this.#key, left) : remove, remove);
  }

  /** Where an earlier client was in a room; told once. */
  take(room) {
    const at = this.cursors.get(room);
    if (this.cursors.delete(room) && !this.#isForgotten(this.#mark)) return at;
  }

  /**
   * Whether another client, maybe of another page of this tab, has forgotten what is from the time of
   * `mark`. An app that clears the storage takes the mark along, and has told no client to forget.
   */
  #isForgotten(mark) {
    return attempt(() => (this.#storage.getItem(this.#hub) ?? mark) !== mark);
  }

  /** Forgets all that clients of this hub have left in this tab. */
  forget() {
    this.session = this.prev = undefined;
    this.cursors.clear();
    // By then another client may have forgotten too: the mark that counts is read when this one opens.
    this.#mark = undefined;
    attempt(() => {
      for (const key of [this.#key, ...Object.keys(this.#storage)]) {
        if (key.startsWith(this.#hub)) this.#storage.removeItem(key);
      }
      // Clients that know of another mark don't write back what is forgotten.
      this.#storage.setItem(this.#hub, `${Math.random()}`);
    });
  }
}

/** Where this frame is in its tab: they share one storage. */
function place() {
  const path = [];
  attempt(() => {
    for (let at = globalThis; at.parent && at.parent !== at; at = at.parent) path.push([].indexOf.call(at.parent, at));
  });
  return path;
}

/** Storage may be absent, blocked, full, or hold what is not ours. */
function attempt(action, otherwise) {
  try {
    return action();
  } catch {
    if (otherwise) attempt(otherwise);
  }
}

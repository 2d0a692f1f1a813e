// How the connection stands: a badge that is always there, and a banner while something is wrong.

const LABELS = {
  idle: "Offline",
  connecting: "Connecting",
  connected: "Connected",
  reconnecting: "Reconnecting",
  closed: "Offline",
};

export class Badge {
  #badge = document.getElementById("badge");
  #banner = document.getElementById("banner");
  #title = document.getElementById("banner-title");
  #text = document.getElementById("banner-text");
  #countdown = document.getElementById("countdown");
  #action = document.getElementById("banner-action");
  #ticking;
  #wasConnected = false;
  #act = () => {};

  constructor() {
    this.#action.addEventListener("click", () => this.#act());
  }

  /** Shows a `state` event; `connect` starts the next attempt at once. */
  show({ state, delay, reason, message }, connect) {
    clearInterval(this.#ticking);
    this.#countdown.textContent = "";
    // After the first connection, every attempt is part of reconnecting.
    const shown = state === "connecting" && this.#wasConnected ? "reconnecting" : state;
    this.#badge.dataset.state = shown;
    this.#badge.textContent = LABELS[shown];
    if (state === "connected") {
      this.#wasConnected = true;
      this.#banner.hidden = true;
    } else if (state === "reconnecting") {
      const lost = this.#wasConnected;
      this.#raise(lost ? "Connection lost." : "The hub does not answer.", "What you miss will be here when it is back.");
      this.#offer("Retry now", connect);
      this.#count(performance.now() + delay);
    } else if (state === "closed") {
      this.#raise("Disconnected.", message ?? reason ?? "");
      this.#offer("Connect", connect);
    }
  }

  /** The client itself could not be loaded. */
  unreachable(hub) {
    this.#badge.dataset.state = "closed";
    this.#badge.textContent = LABELS.closed;
    this.#raise("The hub can't be reached.", `Is it running at ${hub}?`);
    this.#offer("Reload", () => location.reload());
  }

  #raise(title, text) {
    this.#title.textContent = title;
    this.#text.textContent = text;
    this.#banner.hidden = false;
  }

  #offer(label, act) {
    this.#action.textContent = label;
    this.#act = act;
  }

  #count(until) {
    const tick = () => {
      const seconds = Math.ceil((until - performance.now()) / 1000);
      this.#countdown.textContent = seconds > 0 ? `Next attempt in ${seconds} s.` : "Trying now.";
      if (seconds <= 0) clearInterval(this.#ticking);
    };
    this.#ticking = setInterval(tick, 250);
    tick();
  }
}

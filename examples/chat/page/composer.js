// The foot of the page: first asks for a name, then for messages.

/** Milliseconds between two words that someone is typing. */
const TYPING_EVERY = 2_000;

export class Composer {
  #join = document.getElementById("join");
  #name = document.getElementById("name");
  #compose = document.getElementById("compose");
  #text = document.getElementById("text");
  #typedAt = -TYPING_EVERY;

  /** `joined(name)`, `say(text)` and `typing()` are called as they happen. */
  constructor({ joined, say, typing }) {
    this.#join.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = this.#name.value.trim();
      if (name) joined(name);
    });
    this.#compose.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.#text.value.trim();
      if (!text) return;
      this.#text.value = "";
      this.#typedAt = -TYPING_EVERY;
      say(text);
    });
    this.#text.addEventListener("keydown", (event) => {
      // Enter also ends the composition of a character; that one is not meant for us.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#compose.requestSubmit();
    });
    this.#text.addEventListener("input", () => {
      const now = performance.now();
      if (!this.#text.value.trim() || now - this.#typedAt < TYPING_EVERY) return;
      this.#typedAt = now;
      typing();
    });
  }

  /** Asks for messages from now on. */
  open(name) {
    document.getElementById("me").textContent = `You are ${name}`;
    this.#join.hidden = true;
    this.#compose.hidden = false;
    this.#text.focus();
  }
}

// Who is typing. Word of it comes again every two seconds for as long as it is true, and is
// forgotten when it does not.

const LASTS = 4_000;

export class Typing {
  #people = new Map();
  #line;
  #label;

  constructor(line) {
    this.#line = line;
    this.#label = line.querySelector("span");
  }

  /** Someone is typing. */
  add(id, name) {
    clearTimeout(this.#people.get(id)?.timer);
    const timer = setTimeout(() => this.remove(id), LASTS);
    this.#people.set(id, { name, timer });
    this.#show();
  }

  /** Someone has stopped. */
  remove(id) {
    clearTimeout(this.#people.get(id)?.timer);
    this.#people.delete(id);
    this.#show();
  }

  /** Nothing is known of anyone while the connection is gone. */
  clear() {
    for (const id of [...this.#people.keys()]) this.remove(id);
  }

  #show() {
    const names = Array.from(this.#people.values(), ({ name }) => name);
    this.#line.hidden = names.length === 0;
    if (names.length === 1) this.#label.textContent = `${names[0]} is typing`;
    else if (names.length === 2) this.#label.textContent = `${names[0]} and ${names[1]} are typing`;
    else if (names.length > 2) this.#label.textContent = "Several people are typing";
  }
}

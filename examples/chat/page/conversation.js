// The list of messages, in the order of the room. What this tab has sent stands at its end until it
// comes back from the room, and then takes its place there.

import { hue, initials } from "./person.js";

/** More than these are not kept in the page. */
const SHOWN = 500;
/** Messages of one person closer than this stand under one name. */
const TOGETHER = 5 * 60 * 1000;
/** Pixels from the end within which the list follows what is new. */
const AT_END = 80;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export class Conversation {
  #me;
  #scroller = document.getElementById("scroller");
  #list = document.getElementById("messages");
  #empty = document.getElementById("empty");
  #newer = document.getElementById("newer");
  /** Own messages on their way, by id. */
  #pending = new Map();
  /** The message or line that the next one follows. */
  #last;
  /** The day of the last message. */
  #day;
  /** While what was missed comes in: the line above it, and how much it is. */
  #catchUp;
  #nMissed = 0;
  #awaiting = false;
  #atEnd = true;

  constructor(me) {
    this.#me = me;
    this.#scroller.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
      this.#atEnd = scrollHeight - scrollTop - clientHeight < AT_END;
      if (this.#atEnd) this.#newer.hidden = true;
    });
    this.#newer.addEventListener("click", () => this.#toEnd());
    // The window or the footer has changed its size: the end stays in view.
    new ResizeObserver(() => this.#atEnd && this.#toEnd()).observe(this.#scroller);
  }

  /** A message of the room. */
  add({ name, text }, { id, sender, time, recovered }) {
    const own = this.#pending.get(id);
    this.#pending.delete(id);
    if (recovered && this.#awaiting && !own) this.#countCaughtUp();
    else if (!recovered) this.#awaiting = false;
    this.#startDay(time);
    const message = own ?? new Message(sender ?? name, name, text, sender === this.#me.id);
    message.place(time, this.#last);
    this.#insert(message);
    if (message.mine) this.#toEnd();
  }

  /** A message of this tab, before the room has it; `retry` sends it again. */
  draft(id, name, text, retry) {
    const message = new Message(this.#me.id, name, text, true);
    message.onRetry(retry);
    this.#pending.set(id, message);
    this.#list.append(message.element);
    this.#empty.hidden = true;
    this.#toEnd();
  }

  /** A message of this tab is on its way to the room. */
  sending(id) {
    this.#pending.get(id)?.sending();
  }

  /** A message of this tab did not get out. */
  failed(id, reason) {
    this.#pending.get(id)?.failed(reason);
  }

  /** The connection is back: what comes first was missed. */
  reconnected() {
    this.#awaiting = true;
    this.#catchUp = undefined;
    this.#nMissed = 0;
  }

  /** A line that nobody said. */
  note(text) {
    this.#insert(new Line(text));
  }

  #countCaughtUp() {
    if (!this.#catchUp) {
      this.#catchUp = new Line("", "caught-up");
      this.#insert(this.#catchUp);
    }
    this.#nMissed += 1;
    this.#catchUp.text = `While you were away: ${this.#nMissed} ${this.#nMissed === 1 ? "message" : "messages"}`;
  }

  #startDay(time) {
    const day = new Date(time).toDateString();
    if (this.#day === day) return;
    this.#day = day;
    this.#insert(new Line(dayName(time), "day"));
  }

  /** After all that the room had before, before what is still on its way. */
  #insert(entry) {
    const [next] = this.#pending.values();
    this.#list.insertBefore(entry.element, next?.element ?? null);
    this.#last = entry;
    this.#empty.hidden = true;
    while (this.#list.childElementCount > SHOWN) this.#list.firstElementChild.remove();
    if (this.#atEnd) this.#toEnd();
    else this.#newer.hidden = false;
  }

  #toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#atEnd = true;
    this.#newer.hidden = true;
  }
}

/** What someone said. Texts of others only ever become text: nothing here parses HTML. */
class Message {
  element = document.createElement("li");
  #time = document.createElement("time");
  #status = document.createElement("p");
  #at = 0;
  #retry;

  constructor(author, name, text, mine) {
    this.author = author;
    this.mine = mine;
    this.element.className = mine ? "message mine" : "message";
    this.element.style.setProperty("--hue", hue(author));
    const avatar = make("span", "avatar", initials(name));
    avatar.setAttribute("aria-hidden", "true");
    const head = make("p", "head");
    head.append(make("bdi", "name", mine ? "You" : name), " ", this.#time);
    this.#status.className = "status";
    this.#status.hidden = true;
    const body = make("div", "body");
    body.append(head, make("p", "text", text), this.#status);
    this.element.append(avatar, body);
  }

  /** It has come from the room, after `previous`. */
  place(time, previous) {
    this.#at = time;
    this.#time.dateTime = new Date(time).toISOString();
    this.#time.textContent = clock.format(time);
    this.element.title = clock.format(time);
    this.#status.hidden = true;
    delete this.element.dataset.state;
    this.element.classList.toggle("follows", this.#isWith(previous));
  }

  /** It is on its way to the room. */
  sending() {
    this.element.dataset.state = "sending";
    this.#say("Sending");
  }

  /** It did not get there. */
  failed(reason) {
    this.element.dataset.state = "failed";
    const retry = make("button", "link", "Retry");
    retry.type = "button";
    retry.addEventListener("click", this.#retry);
    this.#say(`Not sent: ${reason} `, retry);
  }

  onRetry(retry) {
    this.#retry = retry;
  }

  #isWith(previous) {
    return previous instanceof Message && previous.author === this.author && this.#at - previous.#at < TOGETHER;
  }

  #say(...content) {
    this.#status.replaceChildren(...content);
    this.#status.hidden = false;
  }
}

/** A line between messages. */
class Line {
  element = document.createElement("li");
  #text = document.createElement("span");

  constructor(text, kind = "note") {
    this.element.className = `line ${kind}`;
    this.element.append(this.#text);
    this.text = text;
  }

  set text(text) {
    this.#text.textContent = text;
  }
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

function dayName(time) {
  const day = (date) => new Date(date).toDateString();
  if (day(time) === day(Date.now())) return "Today";
  return calendar.format(time);
}

// The page of the chat: listens to two rooms through Twine, posts to its own backend.

import { Badge } from "./badge.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { person, randomId, remember } from "./person.js";
import { Typing } from "./typing.js";

const HISTORY = 50;

const me = person();
const badge = new Badge();
const conversation = new Conversation(me);
const typing = new Typing(document.getElementById("typing"));
const composer = new Composer({ joined: join, say, typing: sayTyping });

if (me.name) join(me.name);
// The script of the hub defines it, if the hub is there.
if (globalThis.Twine) listen();
else badge.unreachable(document.documentElement.dataset.hub);

function listen() {
  const twine = new Twine(document.documentElement.dataset.hub);
  let connected = false;
  twine.on("state", (event) => {
    badge.show(event, () => twine.connect());
    if (event.state !== "connected") return typing.clear();
    if (connected) conversation.reconnected();
    connected = true;
  });
  twine.on("gap", ({ room, reason }) => {
    if (room !== "chat") return;
    conversation.note(reason === "expired" ? "Older messages are no longer kept" : "Messages may be missing here");
  });
  twine.subscribe("chat", { history: HISTORY }, (data, message) => {
    conversation.add(read(data), message);
    if (message.sender) typing.remove(message.sender);
  });
  twine.subscribe("chat.typing", (data, { sender, recovered }) => {
    // Whoever typed while this page was away has stopped since.
    if (!recovered && sender && sender !== me.id) typing.add(sender, read(data).name);
  });
}

/** What a message has to say. Anyone with a key may publish to the room, in any shape. */
function read(data) {
  const { name, text } = data ?? {};
  return {
    name: typeof name === "string" && name.trim() ? name : "Someone",
    text: typeof text === "string" ? text : typeof data === "string" ? data : JSON.stringify(data),
  };
}

function join(name) {
  me.name = name;
  remember(me);
  composer.open(name);
}

function say(text) {
  const { id: author, name } = me;
  const id = randomId();
  const send = async () => {
    conversation.sending(id);
    // Repeated under its id, it is one message, even where the first attempt got through after all.
    const failure = await post("/messages", { id, author, name, text });
    if (failure) conversation.failed(id, failure);
  };
  conversation.draft(id, name, text, send);
  send();
}

function sayTyping() {
  // Worth no second try, and no word about it.
  post("/typing", { author: me.id, name: me.name });
}

/** Posts to the backend; gives what went wrong, if anything did. */
async function post(path, body) {
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    return answer.ok ? undefined : (await answer.json()).error;
  } catch {
    return "the server can't be reached";
  }
}

// Compiled, not run: what apps write has to type-check, and mistakes must not.
import { Twine, TwineError, type GapEvent, type Message, type State, type Subscription } from "twine-client";
import { Twine as Slim } from "twine-client/slim";

type Line = { from: string; text: string };

const twine = new Twine("https://rt.example.com", { scope: "/inbox", token: "t" });
const state: State = twine.state;

const stop: () => void = twine.on("state", (event) => {
  if (event.state === "reconnecting") event.delay.toFixed();
  if (event.state === "closed") event.reason satisfies string;
  // @ts-expect-error only a reconnection has a delay
  event.delay;
});
twine.once("gap", (gap: GapEvent) => gap.count ?? gap.to.offset - gap.from.offset, { signal: AbortSignal.timeout(1) });
const onError = (error: TwineError) => console.log(error.code, error.retryable, error.room, error.cause);
twine.on("error", onError);
twine.off("error", onError);

const subscribed: Promise<Subscription> = twine.subscribe<Line>("chat", { history: 20 }, (line, message) => {
  line.text.toUpperCase();
  const { room, epoch, offset, time, recovered }: Message = message;
  return [room, epoch, offset, time, recovered];
});
twine.subscribe("chat");
twine.subscribe("chat", async (data) => {
  // @ts-expect-error without a type, data is unknown
  data.text;
});
subscribed.then((at) => twine.subscribe("chat", { after: at, signal: new AbortController().signal }));

const undo: () => void = twine.listenOn<Line>("chat", ({ text }) => text.length);
const left: Promise<void> = twine.unsubscribe("chat");
const connected: Promise<void> = twine.connect({ signal: AbortSignal.timeout(1000) });
const forgotten: Promise<void> = twine.forget();
twine.disconnect();

new Twine(new URL("http://localhost:7070"), { autoConnect: false, WebSocket, fetch });
new Twine("/", { name: "inbox", storage: sessionStorage });
new Twine("/", { storage: "none" });
new Slim("/", { wasm: new URL("https://cdn.example.com/twine.wasm") });
new Slim("/", { wasm: () => fetch("/twine.wasm") });

// @ts-expect-error the slim entry needs its module
new Slim("/");
// @ts-expect-error there is no such storage
new Twine("/", { storage: "local" });
// @ts-expect-error there is no such event
twine.on("message", () => {});
// @ts-expect-error an address is needed
new Twine();

export { state, stop, undo, left, connected, forgotten };

// The module's memory is no part of JavaScript's heap, and the client shows it to nobody.
const { instantiate } = WebAssembly;
WebAssembly.instantiate = async (...values) => {
  const instance = await instantiate(...values);
  const memory = Object.values(instance.exports).find((value) => value instanceof WebAssembly.Memory);
  bench.moduleMemory = () => memory.buffer.byteLength;
  return instance;
};

const twine = new Twine(SERVER);
twine.on("state", ({ state }) => state === "connected" && bench.mark("connected"));
twine.on("error", ({ message }) => bench.fault(message));
twine.on("gap", ({ count }) => bench.fault(`a gap of ${count}`));
twine.subscribe(ROOM, bench.take).then(() => bench.mark("subscribed"));

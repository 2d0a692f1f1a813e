import { Twine as Inline, type TwineOptions } from "./twine.js";

export * from "./twine.js";

/** The client without its WebAssembly module, for those who serve `twine-client/twine.wasm` themselves. */
export declare class Twine extends Inline {
  constructor(url: string | URL, options: SlimOptions);
}

/** How a client is set up whose module comes from elsewhere. */
export interface SlimOptions extends TwineOptions {
  /** The module: its address, a response, its bytes, the compiled module, or what gives one of these. */
  wasm: WasmSource | (() => WasmSource | PromiseLike<WasmSource>);
}

/** Where the module comes from. */
export type WasmSource = string | URL | Response | BufferSource | WebAssembly.Module;

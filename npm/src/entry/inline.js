import { Twine as Slim } from "../twine.js";

/** The client with its module inside: the build puts it at the end as `TWINE_WASM`, a character a byte. */
export class Twine extends Slim {
  constructor(url, options) {
    super(url, { wasm, ...options });
  }
}

export { TwineError } from "../error.js";

function wasm() {
  return Uint8Array.from(TWINE_WASM, (character) => character.charCodeAt(0));
}

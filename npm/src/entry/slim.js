export { Twine } from "../twine.js";
export { TwineError } from "../error.js";

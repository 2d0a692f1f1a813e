import { Twine, TwineError } from "./inline.js";

// One name is enough for a page: the error's class is found on the client's.
Twine.TwineError = TwineError;
globalThis.Twine = Twine;

//! What the driver asks of the page, and of the engine.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// What the JavaScript side does for the driver (`npm/src/host.js`).
    ///
    /// Its methods don't throw. Each may call any method of the driver.
    #[derive(Debug)]
    pub type Host;

    /// Opens a socket to the hub; it calls `opened`, `received` and `closed`. What it was told to send
    /// before goes with the handshake, where that may be `early` and as far as there is room for it; the
    /// rest once it is open. Gives whether the page may open one, and reports why not.
    #[wasm_bindgen(method)]
    pub fn open(this: &Host, early: bool) -> bool;

    /// Sends a text on the socket, or on the one that is opened next. It needs no look at
    /// `bufferedAmount`: the core keeps it bounded, with one request a room under way and few `pong`s.
    #[wasm_bindgen(method)]
    pub fn send(this: &Host, text: &str);

    /// Closes the socket, which is not heard of any more, and forgets what it was told to send and has
    /// not.
    #[wasm_bindgen(method)]
    pub fn close(this: &Host, code: u16);

    /// Calls `timer` in so many milliseconds, or not at all, and no more when it was told before.
    #[wasm_bindgen(method)]
    pub fn timer(this: &Host, delay: Option<f64>);

    /// Fetches the hub's cookie, then calls `cookieSettled`.
    #[wasm_bindgen(method, js_name = fetchCookie)]
    pub fn fetch_cookie(this: &Host);

    /// Hands a `message` frame to its room's listeners. Gives whether one of them returned a
    /// promise; then `settled` is called with the room and `delivery` when all of those are settled.
    /// Without an `epoch`, it is that of the last message.
    #[wasm_bindgen(method)]
    pub fn deliver(this: &Host, frame: &JsValue, epoch: Option<&str>, recovered: bool, delivery: u32)
    -> bool;

    /// What [`super::Driver::save`] would hand to [`Host::store`] has changed. It is told once, until
    /// that is called.
    #[wasm_bindgen(method)]
    pub fn moved(this: &Host);

    /// What the next client of this tab has to know: the session, and a `pong` frame whose cursors
    /// are those behind which all listeners are through.
    #[wasm_bindgen(method)]
    pub fn store(this: &Host, session: Option<&str>, pong: &str);

    /// The state has changed.
    #[wasm_bindgen(method)]
    pub fn state(
        this: &Host,
        state: &str,
        delay: Option<f64>,
        reason: Option<&str>,
        code: Option<u16>,
        message: Option<&str>,
    );

    /// Messages are lost.
    #[wasm_bindgen(method)]
    #[allow(clippy::too_many_arguments)]
    pub fn gap(
        this: &Host,
        room: &str,
        from_epoch: &str,
        from_offset: f64,
        to_epoch: &str,
        to_offset: f64,
        count: Option<f64>,
        reason: &str,
    );

    /// The call has made a subscription.
    #[wasm_bindgen(method)]
    pub fn subscribed(this: &Host, call: &JsValue, epoch: &str, offset: f64, recovered: Option<bool>);

    /// The call has ended a subscription.
    #[wasm_bindgen(method)]
    pub fn unsubscribed(this: &Host, call: &JsValue);

    /// The call has failed; without a call (`undefined`), something else has. Without a `detail`,
    /// the code says it all.
    #[wasm_bindgen(method)]
    pub fn failed(
        this: &Host,
        call: &JsValue,
        code: &str,
        detail: Option<&str>,
        retryable: bool,
        room: Option<&str>,
    );

    /// Monotonic, so that a clock that is set does not delay a timer.
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

/// Milliseconds of a monotonic clock.
pub(super) fn now() -> u64 {
    integer(performance_now()).unwrap_or(0)
}

/// The whole part of a number below 2^53, up to which integers are exact on both sides.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn integer(number: f64) -> Option<u64> {
    (0.0..9_007_199_254_740_992.0).contains(&number).then_some(number as u64)
}

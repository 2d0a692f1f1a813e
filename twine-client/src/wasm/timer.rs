//! One timeout, which is cleared with its handle.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    // Numbers in browsers, objects in Node.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(run: &JsValue, delay: f64) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: &JsValue);
}

/// A function that runs once, unless this is dropped before.
#[derive(Debug)]
pub(super) struct Timer {
    at: u64,
    id: JsValue,
    _run: Closure<dyn Fn()>,
}

impl Timer {
    /// Runs `run` in `delay` milliseconds, when the clock is at `at`.
    pub(super) fn new(at: u64, delay: u64, run: impl Fn() + 'static) -> Self {
        let run = Closure::<dyn Fn()>::new(run);
        let id = set_timeout(run.as_ref(), super::number(delay));
        Self { at, id, _run: run }
    }

    /// When it runs.
    pub(super) fn at(&self) -> u64 {
        self.at
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        clear_timeout(&self.id);
    }
}

//! One WebSocket and its listeners, which end with it.

use std::rc::Rc;

use twine_protocol::CloseCode;
use wasm_bindgen::prelude::*;
use web_sys::{CloseEvent, MessageEvent, WebSocket};

use crate::core::SocketId;

/// What a socket says.
pub(super) enum Event {
    Opened,
    Text(js_sys::JsString),
    Binary,
    Closed(u16, String),
}

/// A socket that is being opened, or is open. Dropping it takes its listeners off and closes it.
///
/// What is sent here needs no look at `bufferedAmount`: the core keeps it bounded, with one request
/// a room under way and one `pong` a `ping`.
#[derive(Debug)]
pub(super) struct Socket {
    id: SocketId,
    web: WebSocket,
    _opened: Closure<dyn Fn()>,
    _message: Closure<dyn Fn(MessageEvent)>,
    _closed: Closure<dyn Fn(CloseEvent)>,
}

impl Socket {
    pub(super) fn new(id: SocketId, web: WebSocket, on_event: impl Fn(Event) + 'static) -> Self {
        let on_event = Rc::new(on_event);
        let opened = {
            let on_event = on_event.clone();
            Closure::<dyn Fn()>::new(move || on_event(Event::Opened))
        };
        let message = {
            let on_event = on_event.clone();
            Closure::<dyn Fn(MessageEvent)>::new(move |event: MessageEvent| {
                on_event(event.data().dyn_into().map_or(Event::Binary, Event::Text));
            })
        };
        let closed = Closure::<dyn Fn(CloseEvent)>::new(move |event: CloseEvent| {
            on_event(Event::Closed(event.code(), event.reason()));
        });
        // An `error` is always followed by a `close`, which says more.
        web.set_onopen(Some(opened.as_ref().unchecked_ref()));
        web.set_onmessage(Some(message.as_ref().unchecked_ref()));
        web.set_onclose(Some(closed.as_ref().unchecked_ref()));
        Self { id, web, _opened: opened, _message: message, _closed: closed }
    }

    pub(super) fn id(&self) -> SocketId {
        self.id
    }

    pub(super) fn send(&self, text: &str) {
        // Fails only before the socket is open, when the core sends nothing.
        let _ = self.web.send_with_str(text);
    }

    pub(super) fn close(&self, code: CloseCode) {
        // Fails where a page may not send this code; then the drop closes without one.
        let _ = self.web.close_with_code(code.as_u16());
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.web.set_onopen(None);
        self.web.set_onmessage(None);
        self.web.set_onclose(None);
        // Without effect where it is closed already.
        let _ = self.web.close();
    }
}

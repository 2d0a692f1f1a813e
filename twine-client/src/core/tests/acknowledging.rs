//! What the hub is told of cursors.

use super::*;

#[test]
fn a_pong_names_the_cursors_that_moved() {
    let (mut bench, socket) = Bench::subscribed(4);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
    bench.frame(socket, message(5));
    bench.core.delivered(&room("chat"), &at("e1", 5));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 5)]);
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
}

#[test]
fn an_unsettled_callback_holds_the_acknowledged_cursor_back_for_a_while() {
    let (mut bench, socket) = Bench::subscribed(4);
    for offset in 5..=7 {
        bench.frame(socket, message(offset));
    }
    bench.core.delivered(&room("chat"), &at("e1", 5));
    bench.core.pending(bench.now, &room("chat"), &at("e1", 6));
    bench.core.delivered(&room("chat"), &at("e1", 7));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 5)]);
    bench.core.delivered(&room("chat"), &at("e1", 6));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 7)]);
    bench.frame(socket, message(8));
    bench.core.pending(bench.now, &room("chat"), &at("e1", 8));
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), []);
    bench.now += limits::SETTLE_WAIT;
    assert_eq!(acked(&bench.frame(socket, ServerFrame::Ping)), [at("e1", 8)]);
}

//! Publishers whose connections a shard looks after: those that go on publishing, and send each request in one piece.

use std::net;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use bytes::BytesMut;
use tokio::runtime::Handle;

use super::{MAX_OUTPUT, Request, Talk, begin, finish};
use crate::accept::Place;
use crate::connection::Guest;
use crate::http::server::{Peer, Server};

/// A publisher, while its socket is with a shard.
pub(in crate::http) struct Publisher {
    talk: Talk,
    server: Arc<Server>,
    peer: Peer,
    place: Place,
    /// Where its connection goes back to.
    runtime: Handle,
}

impl Publisher {
    /// Gives the socket to a shard.
    pub(in crate::http) fn move_out(
        socket: net::TcpStream,
        talk: Talk,
        server: &Arc<Server>,
        peer: Peer,
        place: Place,
    ) {
        let publisher = Self { talk, server: server.clone(), peer, place, runtime: Handle::current() };
        server.app.connections.host(Box::new(publisher), socket);
    }
}

impl Guest for Publisher {
    fn turn(&mut self, read: &[u8], cx: &mut Context<'_>) -> bool {
        let Self { talk, server, .. } = self;
        let app = &server.app;
        let (used, next) = begin(read, &mut talk.publishes, app);
        let rest = read.get(used..).unwrap_or_default();
        talk.is_last = matches!(next, Request::Last);
        if !talk.is_last && !rest.is_empty() {
            talk.input = BytesMut::from(rest);
        }
        let mut stays = matches!(next, Request::Nothing) && rest.is_empty();
        if stays {
            // Whether any is ready is seen from the output.
            let _ = finish(&mut talk.publishes, &mut talk.output, app, false, cx);
            // Those beyond have not been asked for, and would wake nobody.
            stays = talk.publishes.is_empty() || talk.output.len() < MAX_OUTPUT;
        }
        if !(read.is_empty() && talk.output.is_empty()) {
            talk.until = (Instant::now() + server.limits.header_timeout).into();
        }
        stays
    }

    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.talk.output
    }

    fn is_late(&self, now: Instant) -> bool {
        self.talk.publishes.is_empty() && now >= self.talk.until.into_std()
    }

    fn leave(self: Box<Self>, socket: net::TcpStream) {
        let Self { talk, server, peer, place, runtime } = *self;
        let tasks = server.app.tasks.clone();
        tasks.spawn_on(&runtime, async move { server.connection(socket, talk, peer, place).await });
    }
}

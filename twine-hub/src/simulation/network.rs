//! A connection between a page and the hub, through a network that may do anything but change bytes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::{Message, WebSocket, protocol::Role};
use twine_client::core::SocketId;
use twine_protocol::{CloseCode, ServerFrame};

use super::tab::PageId;
use crate::connection::{Caller, Handover};
use crate::rooms::frames;

/// So little fits into the hub's socket that it blocks soon.
const SEND_BUFFER: usize = 4 << 10;

/// A page's end of a connection, and what is under way on it.
pub(super) struct Link {
    pub(super) page: PageId,
    pub(super) socket: SocketId,
    /// Whether what the page says before it is open may be in its handshake.
    may_be_early: bool,
    /// The hub that it was opened to; `None` while it is being opened.
    pub(super) boot: Option<usize>,
    /// Whether nothing gets through, to the hub and to the page.
    pub(super) is_held: (bool, bool),
    /// Whether the page has let go of it: what comes is for nobody.
    pub(super) is_abandoned: bool,
    client: WebSocket<Wire>,
    /// The end that the hub's socket is connected to.
    hub: Option<UnixStream>,
}

/// Bytes of the page's end.
#[derive(Default)]
struct Wire {
    came: VecDeque<u8>,
    goes: VecDeque<u8>,
    has_ended: bool,
}

/// What has come for a page.
pub(super) enum Incoming {
    Text(String),
    Closed(u16),
}

impl Link {
    pub(super) fn new(page: PageId, socket: SocketId, may_be_early: bool) -> Self {
        Self {
            page,
            socket,
            may_be_early,
            boot: None,
            is_held: (false, false),
            is_abandoned: false,
            client: WebSocket::from_raw_socket(Wire::default(), Role::Client, None),
            hub: None,
        }
    }

    /// Opens it; gives the hub's end. What the page has said `is_early`, in the handshake, where it may be.
    pub(super) fn open(&mut self, boot: usize, caller: Caller, is_early: bool) -> Handover {
        let (ours, theirs) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&theirs).set_send_buffer_size(SEND_BUFFER).unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let is_early = is_early && self.may_be_early;
        self.boot = Some(boot);
        self.hub = Some(ours);
        Handover {
            socket: TcpStream::from(OwnedFd::from(theirs)),
            // Anything that the page takes for a frame: it has no handshake here.
            answer: if is_early { frames::frame(&ServerFrame::Ping) } else { Bytes::new() },
            read: if is_early { std::mem::take(&mut self.client.get_mut().goes).into() } else { Vec::new() },
            is_compressed: false,
            caller,
        }
    }

    /// The page sends a frame.
    pub(super) fn send(&mut self, text: String) {
        // A socket that is closing takes nothing more.
        let _ = self.client.send(Message::text(text));
    }

    /// The page closes it, and listens no longer.
    pub(super) fn close(&mut self, code: CloseCode) {
        let frame = CloseFrame { code: code.as_u16().into(), reason: "".into() };
        // It may be closed already.
        let _ = self.client.close(Some(frame));
        self.is_abandoned = true;
    }

    /// The page is gone without a word, but for what its system says.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
    }

    /// Takes bytes to the hub, and its end of the stream behind them where the page has let go.
    pub(super) fn up(&mut self, max: usize) -> usize {
        let Some(hub) = &mut self.hub else { return 0 };
        let goes = &mut self.client.get_mut().goes;
        let n = goes.len().min(max);
        let bytes: Vec<u8> = goes.iter().take(n).copied().collect();
        let written = match hub.write(&bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(_) => n,
        };
        goes.drain(..written);
        if self.is_abandoned && goes.is_empty() {
            // The hub may have closed it.
            let _ = hub.shutdown(std::net::Shutdown::Write);
        }
        written
    }

    /// Takes bytes to the page.
    pub(super) fn down(&mut self, max: usize) -> (usize, Vec<Incoming>) {
        let Some(hub) = &mut self.hub else { return (0, Vec::new()) };
        let mut buffer = vec![0; max];
        let n = match hub.read(&mut buffer) {
            Ok(0) => {
                self.hub = None;
                self.client.get_mut().has_ended = true;
                0
            }
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (0, Vec::new()),
            Err(_) => {
                self.cut();
                0
            }
        };
        self.client.get_mut().came.extend(&buffer[..n]);
        (n, self.incoming())
    }

    /// The network loses it; the page will notice.
    pub(super) fn cut(&mut self) {
        self.cut_from_hub();
        self.client.get_mut().has_ended = true;
    }

    /// The network loses it, and only the hub notices.
    pub(super) fn cut_from_hub(&mut self) {
        self.hub = None;
    }

    /// Whether nothing can come of it any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_abandoned && self.hub.is_none() && self.boot.is_some()
    }

    /// What has come whole.
    pub(super) fn incoming(&mut self) -> Vec<Incoming> {
        let mut all = Vec::new();
        loop {
            match self.client.read() {
                Ok(Message::Text(text)) => all.push(Incoming::Text(text.as_str().to_owned())),
                Ok(Message::Close(frame)) => {
                    all.push(Incoming::Closed(frame.map_or(1005, |frame| frame.code.into())));
                    return all;
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return all,
                Err(_) => {
                    all.push(Incoming::Closed(1006));
                    return all;
                }
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.came.is_empty() && !self.has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.came.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.goes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! `twine-hub healthcheck`: for images that hold nothing but this binary.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Failure;
use crate::hub;

/// How long the hub has to take the connection, and to answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn run(listen: SocketAddr) -> Result<(), Failure> {
    let address = hub::reachable(listen);
    match ask(address) {
        Ok(status) if status.starts_with(b"HTTP/1.1 200 ") => Ok(()),
        Ok(status) => {
            let status = String::from_utf8_lossy(&status).trim_end().to_owned();
            Err(Failure::Failed(format!("{address} answers {status:?}")))
        }
        Err(error) => Err(Failure::Failed(format!("{address} does not answer: {error}"))),
    }
}

fn ask(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(
        format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut status = vec![0; "HTTP/1.1 200 ".len()];
    socket.read_exact(&mut status)?;
    Ok(status)
}

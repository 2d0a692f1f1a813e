//! The system calls and the bytes of a connection.

use memchr::memmem;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(crate) fn send_all(fd: i32, data: &[u8]) -> bool {
    let n = unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) };
    n == data.len() as isize
}

pub(crate) fn send_frame(fd: i32, opcode: u8, payload: &[u8]) -> bool {
    let mut out = vec![0x80 | opcode];
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0x80 | 126);
        out.extend((payload.len() as u16).to_be_bytes());
    }
    out.extend(MASK);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i & 3]));
    send_all(fd, &out)
}

pub(crate) fn sockaddr(ip: [u8; 4], port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip) },
        sin_zero: [0; 8],
    }
}

pub(crate) fn set(fd: i32, level: i32, option: i32) {
    let one: i32 = 1;
    unsafe { libc::setsockopt(fd, level, option, (&raw const one).cast(), 4) };
}

/// Length of the first whole HTTP answer in `b` and its status.
pub(crate) fn http_answer(b: &[u8]) -> Option<(usize, u16)> {
    let head = memmem::find(b, b"\r\n\r\n")?;
    let status: u16 = std::str::from_utf8(b.get(9..12)?).ok()?.parse().ok()?;
    let lower = String::from_utf8_lossy(&b[..head]).to_ascii_lowercase();
    let value = |k: &str| lower.split("\r\n").find_map(|l| l.strip_prefix(k)).map(|v| v.trim().to_string());
    if let Some(n) = value("content-length:") {
        let end = head + 4 + n.parse::<usize>().ok()?;
        (b.len() >= end).then_some((end, status))
    } else if value("transfer-encoding:").is_some_and(|v| v.contains("chunked")) {
        if b[head + 4..].starts_with(b"0\r\n\r\n") {
            return Some((head + 9, status));
        }
        memmem::find(&b[head + 4..], b"\r\n0\r\n\r\n").map(|p| (head + 4 + p + 7, status))
    } else {
        Some((head + 4, status))
    }
}

#[cfg(test)]
mod tests {
    use super::http_answer;

    #[test]
    fn http_answers_end_where_they_should() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200";
        assert_eq!(http_answer(whole), Some((45, 201)));
        assert_eq!(http_answer(&whole[..44]), None);
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(http_answer(chunked), Some((chunked.len(), 200)));
        assert_eq!(http_answer(&chunked[..chunked.len() - 3]), None);
        assert_eq!(http_answer(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((27, 204)));
    }
}

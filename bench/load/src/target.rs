//! What a server under test looks like from outside: one TOML file.
//! Placeholders: {room} (r000042), {n} (client number), {payload}, and in a
//! publish request {len} (bytes of the body). Every room name has 7 characters.

use serde::Deserialize;

#[derive(Deserialize)]
pub struct Target {
    pub name: String,
    #[serde(default = "loopback")]
    pub host: String,
    pub port: u16,
    /// Where several processes are one server: all their ports. Clients are spread over them.
    #[serde(default)]
    pub ports: Vec<u16>,
    pub ws_path: String,
    /// For servers that take them so: what the talk says before it waits for an answer goes with the handshake, each
    /// frame a line of this query parameter, in base64url.
    pub ws_early: Option<String>,
    /// Extra handshake header lines, such as "Origin: http://localhost".
    #[serde(default)]
    pub ws_headers: Vec<String>,
    /// A GET before the handshake whose Set-Cookie goes into the handshake.
    pub cookie: Option<Cookie>,
    /// Talk after the handshake; the client counts as subscribed at its end.
    #[serde(default)]
    pub subscribe: Vec<Step>,
    /// Send frames as binary instead of text.
    #[serde(default)]
    pub binary: bool,
    /// Application-level pings and what answers them.
    #[serde(default)]
    pub replies: Vec<Reply>,
    pub publish: Publish,
    /// What a client says that comes back, for the scenario `storm`.
    pub resume: Option<Resume>,
    /// Where the server says how many rooms it has in memory, for the scenario `rooms`.
    pub rooms_gauge: Option<Gauge>,
}

/// A value that the server shows on a page of lines `name value`.
#[derive(Deserialize)]
pub struct Gauge {
    pub path: String,
    pub name: String,
}

/// Placeholders in its texts, beside the others: {epoch}, {offset} and {session}, which the client
/// took from what it was sent, and {next}, the sequence number that is due.
#[derive(Deserialize)]
pub struct Resume {
    /// Default: the same as the first time.
    pub ws_path: Option<String>,
    /// Talk after the handshake, in place of `subscribe`.
    #[serde(default)]
    pub talk: Vec<Step>,
    /// The texts that values stand behind, in any frame: each ends before `"`, `,` or `}`.
    #[serde(default)]
    pub keep: Keep,
}

#[derive(Deserialize, Default)]
pub struct Keep {
    pub epoch: Option<String>,
    pub offset: Option<String>,
    pub session: Option<String>,
    /// Milliseconds to wait before coming back.
    pub retry: Option<String>,
}

#[derive(Deserialize)]
pub struct Cookie {
    pub path: String,
    pub port: Option<u16>,
    /// One GET for each client instead of one for all.
    #[serde(default)]
    pub per_client: bool,
}

#[derive(Deserialize)]
pub struct Step {
    /// Wait for a frame that contains this before sending.
    pub expect: Option<String>,
    pub send: Option<String>,
    /// For a client's first room only.
    #[serde(default)]
    pub once: bool,
}

#[derive(Deserialize)]
pub struct Reply {
    /// The frame starts with this ("exact" = it is the whole frame).
    pub starts: String,
    #[serde(default)]
    pub exact: bool,
    pub send: String,
}

#[derive(Deserialize)]
pub struct Publish {
    /// "http" (default), "nats" (PUB + PING over TCP), "mqtt" (QoS 1 over TCP).
    #[serde(default)]
    pub kind: Kind,
    pub port: Option<u16>,
    /// Publishing connections are spread over these; default: `port`, else those of the target.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Each publish goes to every port, for servers that know nothing of each other.
    #[serde(default)]
    pub each: bool,
    #[serde(default = "post")]
    pub method: String,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub headers: Vec<String>,
    #[serde(default)]
    pub body: String,
    /// Sign as Pusher's HTTP API wants it.
    pub pusher: Option<Pusher>,
}

#[derive(Deserialize, Default, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Http,
    Nats,
    Mqtt,
}

#[derive(Deserialize)]
pub struct Pusher {
    pub key: String,
    pub secret: String,
}

fn loopback() -> String {
    "127.0.0.1".into()
}

fn post() -> String {
    "POST".into()
}

pub fn room_name(room: usize) -> String {
    format!("r{room:06}")
}

pub fn fill(template: &str, room: usize, n: usize) -> String {
    template.replace("{room}", &room_name(room)).replace("{n}", &n.to_string())
}

impl Target {
    pub fn read(path: &str) -> Target {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut t: Target = toml::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(t.host.starts_with("127."), "only loopback is ever a target");
        if t.ports.is_empty() {
            t.ports = vec![t.port];
        }
        if t.publish.ports.is_empty() {
            t.publish.ports = t.publish.port.map_or_else(|| t.ports.clone(), |port| vec![port]);
        }
        t
    }

    /// Leaves clients and publishers only so many ports.
    pub fn narrow(&mut self, clients: usize, publishers: usize) {
        self.ports.truncate(clients.max(1));
        self.publish.ports.truncate(publishers.max(1));
    }

    /// Where a client connects to: each room has its clients on all ports.
    pub fn port_of(&self, i: usize, room: usize, rooms: usize) -> u16 {
        self.ports[(i / rooms.max(1) + room) % self.ports.len()]
    }

    /// The first step of the talk that is about a room; what precedes it is said once a connection.
    pub fn about_rooms(&self) -> usize {
        let names = |s: &Step| s.send.as_ref().is_some_and(|text| text.contains("{room}"));
        self.subscribe.iter().position(names).expect("a talk that names a room; checked at the start")
    }

    /// A text as it goes on the wire: in binary frames each character is one byte.
    pub fn bytes(&self, text: &str) -> Vec<u8> {
        if self.binary { text.chars().map(|c| c as u8).collect() } else { text.as_bytes().to_vec() }
    }

    /// The bytes of one publish.
    pub fn publish_request(&self, room: usize, payload: &str, out: &mut Vec<u8>) {
        use std::io::Write;
        let p = &self.publish;
        let name = room_name(room);
        match p.kind {
            Kind::Nats => {
                write!(out, "PUB {name} {}\r\n{payload}\r\nPING\r\n", payload.len()).unwrap();
            }
            Kind::Mqtt => {
                out.push(0x32);
                let mut len = 2 + name.len() + 2 + payload.len();
                loop {
                    let more = if len >= 128 { 128 } else { 0 };
                    out.push((len % 128) as u8 | more);
                    len /= 128;
                    if len == 0 {
                        break;
                    }
                }
                out.extend((name.len() as u16).to_be_bytes());
                out.extend(name.as_bytes());
                out.extend([0, 1]); // packet id: one at a time
                out.extend(payload.as_bytes());
            }
            Kind::Http => {
                let body = p.body.replace("{room}", &name).replace("{payload}", payload);
                let mut path = p.path.replace("{room}", &name);
                if let Some(k) = &p.pusher {
                    path = sign(k, &p.method, &path, &body);
                }
                write!(out, "{} {path} HTTP/1.1\r\nHost: {}:{}\r\n", p.method, self.host, p.ports[0])
                    .unwrap();
                for h in &p.headers {
                    write!(out, "{}\r\n", h.replace("{room}", &name)).unwrap();
                }
                write!(out, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sign(k: &Pusher, method: &str, path: &str, body: &str) -> String {
    use hmac::Mac;
    use md5::Digest;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let query = format!(
        "auth_key={}&auth_timestamp={now}&auth_version=1.0&body_md5={}",
        k.key,
        hex(&md5::Md5::digest(body))
    );
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(k.secret.as_bytes()).unwrap();
    mac.update(format!("{method}\n{path}\n{query}").as_bytes());
    format!("{path}?{query}&auth_signature={}", hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn what_is_about_a_room_is_said_again() {
        let text = "name = 'x'\nport = 1\nws_path = '/'\nsubscribe = [{ send = 'hi' }, { expect = 'hi' }, { send = 'sub {room}' }, { expect = 'ok' }]\n[publish]\n";
        let t: Target = toml::from_str(text).unwrap();
        assert_eq!(t.about_rooms(), 2);
    }

    #[test]
    fn every_room_has_clients_on_all_ports() {
        let text = "name = 'x'\nport = 1\nports = [1, 2, 3]\nws_path = '/'\n[publish]\n";
        let mut t: Target = toml::from_str(text).unwrap();
        for rooms in [1, 2, 3, 7, 10] {
            for room in 0..rooms {
                let mut ports: Vec<_> = (0..3).map(|k| t.port_of(room + k * rooms, room, rooms)).collect();
                ports.sort_unstable();
                assert_eq!(ports, [1, 2, 3], "room {room} of {rooms}");
            }
        }
        t.narrow(1, 1);
        assert_eq!(t.port_of(5, 2, 3), 1);
    }
}

//! Keeps `docs/PROTOCOL.md` true: its tables, its examples, and what the code says about its sections.
#![cfg(feature = "json")]
// The exception of clippy.toml covers test functions, not what they share.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;
use twine_protocol::api::{History, Problem, Publish, Published, PublishedList, RoomInfo, RoomList};
use twine_protocol::json::{decode_client, decode_publish, decode_publish_batch, decode_server};
use twine_protocol::{
    ClientFrame, CloseCode, Connect, Data, EARLY_PARAMETER, Epoch, ErrorCode, GapReason, InstanceId,
    MessageId, Position, RoomName, SUBPROTOCOL, SessionId,
};

fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md")).unwrap()
}

/// The rows of the table whose head is `head`, cell by cell, without the marks of code.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let rows = page.lines().skip_while(|line| *line != head).skip(2);
    let cell = |cell: &str| cell.trim().replace('`', "");
    let cells = |row: &str| row.trim_matches('|').split('|').map(cell).collect();
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "no table has the head {head}");
    rows
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

#[test]
fn the_table_of_errors_is_the_one_in_code() {
    let in_code = ErrorCode::ALL.iter().map(|code| {
        vec![
            code.as_str().to_owned(),
            code.http_status().to_string(),
            code.close_code().map_or_else(|| "-".to_owned(), |close| close.as_u16().to_string()),
            yes(code.is_retryable()),
            code.remedy().replace('`', ""),
        ]
    });
    let in_page = table(&page(), "| code | HTTP | close | retry | remedy |");
    assert_eq!(in_page, in_code.collect::<Vec<_>>());
}

#[test]
fn the_table_of_close_codes_is_the_one_in_code() {
    let in_code =
        CloseCode::ALL.map(|code| (code.as_u16().to_string(), yes(CloseCode::is_retryable(code.as_u16()))));
    let rows = table(&page(), "| close code | meaning | connect again |");
    let in_page: Vec<_> = rows.into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    assert_eq!(in_page, in_code);
}

#[test]
fn the_table_of_reasons_is_the_one_in_code() {
    let rows = table(&page(), "| reason | meaning |");
    let in_page: Vec<_> = rows.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(in_page, GapReason::ALL.map(GapReason::as_str));
}

#[test]
fn the_table_of_texts_has_the_lengths_of_the_code() {
    let rows = table(&page(), "| text | length in bytes | characters |");
    let in_page: Vec<_> = rows.into_iter().map(|row| (row[0].clone(), row[1].replace(',', ""))).collect();
    let in_code = [
        ("room name", 1, RoomName::MAX_BYTES),
        ("epoch", 0, Epoch::MAX_BYTES),
        ("message id", 1, MessageId::MAX_BYTES),
        ("session id, instance id", 1, SessionId::MAX_BYTES),
        ("sender", 0, Publish::<Data>::MAX_SENDER_BYTES),
        ("scope", 0, Connect::MAX_SCOPE_BYTES),
    ];
    assert_eq!(in_page, in_code.map(|(text, min, max)| (text.to_owned(), format!("{min} to {max}"))));
    assert_eq!(SessionId::MAX_BYTES, InstanceId::MAX_BYTES);
}

#[test]
fn the_page_names_the_subprotocol() {
    assert!(page().contains(&format!("`{SUBPROTOCOL}`")));
    assert!(page().contains(&format!("query parameter `{EARLY_PARAMETER}`")));
}

/// Fenced blocks: the words after the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut parts = page.split("\n```");
    parts.next();
    let mut blocks = Vec::new();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        let (info, text) = block.split_once('\n').unwrap();
        blocks.push((info.to_owned(), text.to_owned()));
    }
    blocks
}

#[test]
fn the_examples_are_what_the_code_writes() {
    let mut frames = 0;
    for (info, text) in blocks(&page()) {
        match info.as_str() {
            "wire" => {
                for line in text.lines() {
                    match line.split_at(3) {
                        ("-> ", frame) => assert_eq!(decode_client(frame).unwrap().to_json(), frame),
                        ("<- ", frame) => assert_eq!(decode_server(frame).unwrap().to_json(), frame),
                        _ => panic!("neither -> nor <-: {line}"),
                    }
                    frames += 1;
                }
            }
            "json client-frame" => {
                for frame in text.lines() {
                    assert_eq!(decode_client(frame).unwrap().to_json(), frame);
                    frames += 1;
                }
            }
            "json hub-frame" => {
                for frame in text.lines() {
                    assert_eq!(decode_server(frame).unwrap().to_json(), frame);
                    frames += 1;
                }
            }
            "json publish" => assert_same(&text, &decode_publish(text.as_bytes()).unwrap()),
            "json publish-batch" => assert_same(&text, &decode_publish_batch(text.as_bytes()).unwrap()),
            "json position" => assert_answer::<Position>(&text),
            "json published" => assert_answer::<Published>(&text),
            "json published-list" => assert_answer::<PublishedList>(&text),
            "json history" => assert_answer::<History<Data>>(&text),
            "json room-list" => assert_answer::<RoomList>(&text),
            "json room-info" => assert_answer::<RoomInfo>(&text),
            "json problem" => assert_problem(&text),
            "early" => {
                let list = text.trim().strip_prefix(&format!("GET /ws?{EARLY_PARAMETER}=")).unwrap();
                let frames =
                    String::from_utf8(BASE64.decode(list.strip_suffix(" HTTP/1.1").unwrap()).unwrap())
                        .unwrap();
                let types = frames.lines().map(|frame| match decode_client(frame).unwrap() {
                    ClientFrame::Connect(_) => "connect",
                    ClientFrame::Subscribe(_) => "subscribe",
                    other => panic!("{other:?}"),
                });
                assert_eq!(types.collect::<Vec<_>>(), ["connect", "subscribe"]);
            }
            "sh" | "text" => {}
            other => panic!("a block is marked {other:?}, which no test reads"),
        }
    }
    assert!(frames > 25, "the examples were not found");
}

fn assert_answer<T: DeserializeOwned + Serialize>(text: &str) {
    assert_same(text, &serde_json::from_str::<T>(text).unwrap());
}

/// Nothing in `text` is unknown to the type and nothing is left out.
fn assert_same<T: Serialize>(text: &str, value: &T) {
    let text: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(value).unwrap(), text);
}

fn assert_problem(text: &str) {
    assert_answer::<Problem>(text);
    let problem: Problem = serde_json::from_str(text).unwrap();
    assert_eq!((problem.status, &*problem.title), (problem.code.http_status(), problem.code.remedy()));
}

fn headings(page: &str) -> Vec<&str> {
    page.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .collect()
}

/// The fields of the first table in a section, without the marks of code and of optional fields.
fn fields(page: &str, heading: &str) -> Vec<String> {
    let section =
        page.split("\n#").find(|section| section.trim_start_matches('#').trim().starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section is called {heading:?}"));
    if !section.contains("| field |") {
        return Vec::new();
    }
    let rows = table(section, "| field | type | meaning |");
    rows.iter().flat_map(|row| row[0].trim_end_matches(" ?").split(", ").map(str::to_owned)).collect()
}

#[test]
fn every_frame_has_its_section_with_its_fields() {
    let page = page();
    for file in [include_str!("../vectors/client-frames.json"), include_str!("../vectors/hub-frames.json")] {
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        for vector in file["good"].as_array().unwrap() {
            let frame = vector["decoded"].as_object().unwrap();
            let kind = frame["type"].as_str().unwrap();
            let mut in_page = fields(&page, &format!("{kind}\n"));
            in_page.sort();
            let named = |field: &String| if field == "data_text" { "data".to_owned() } else { field.clone() };
            let in_code: Vec<_> = frame.keys().filter(|field| *field != "type").map(named).collect();
            assert_eq!(in_page, in_code, "the fields of {kind}");
        }
    }
}

#[test]
fn sections_that_the_code_names_exist() {
    let page = page();
    let headings = headings(&page);
    let mut named = 0;
    for source in sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        // A reference may be broken over two lines of a comment.
        let source = source.replace("\n/// ", " ").replace("\n//! ", " ");
        for reference in source.split("PROTOCOL.md, \"").skip(1) {
            let section = reference.split('"').next().unwrap();
            assert!(headings.contains(&section), "the code names the section {section:?}");
            named += 1;
        }
    }
    assert!(named > 5, "the references were not found");
}

fn sources(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![fs::read_to_string(path).unwrap()] })
        .collect()
}

#[test]
fn links_inside_the_page_lead_somewhere() {
    let page = page();
    let plain = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let anchor =
        |heading: &str| heading.to_lowercase().chars().filter(plain).collect::<String>().replace(' ', "-");
    let anchors: Vec<_> = headings(&page).into_iter().map(anchor).collect();
    for link in page.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(anchors.iter().any(|anchor| anchor == target), "nothing is at #{target}");
    }
}

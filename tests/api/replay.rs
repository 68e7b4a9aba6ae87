//! Upstream's answers, recorded: the same requests are sent to this API server and must be answered the same.
//!
//! Owns: reading tests/upstream/golden, sending its requests in order, and holding the list of known differences.
//! Called by: `cargo test --test api replay`. `scripts/replay --record` writes what is read here; no Go is needed to run it.
//! After a change for the better `REPLAY_KNOWN=write cargo test --test api replay` shrinks the list;
//! `REPLAY_SHOW=PART-OF-AN-ID cargo test --test api replay -- --nocapture` shows how known answers differ.
//! Never: knows what an answer means.

mod normal;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use minik_apiserver::UserInfo;
use serde_json::{Map, Value};

use self::normal::{Names, condensed};
use self::request::Step;
use crate::server::Server;

/// So many unexpected answers are shown.
const SHOWN_MAX: usize = 25;
const EVENT_SECONDS_MAX: u64 = 2;
const SETTLE_MAX: Duration = Duration::from_secs(2);
const SETTLE_STEP: Duration = Duration::from_millis(5);
/// The mark of an answer that depends on how far something in the background has come, upstream too: not compared.
const MOVING: &str = "moving";

#[tokio::test]
async fn upstreams_recorded_answers_are_given_here_too() {
    let known = known();
    let shown = std::env::var("REPLAY_SHOW").ok();
    let server = Server::start().await;
    let (mut new, mut mended, mut differing, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new(), 0);
    for file in golden_files() {
        let group = file.file_stem().expect("a name").to_string_lossy().into_owned();
        for case in request::cases(&std::fs::read_to_string(&file).expect("a golden file")) {
            for (step, difference) in replay(&server, &case).await {
                seen += 1;
                let id = format!("{group}/{}/{step}", case.name);
                if let Some(difference) = &difference {
                    if shown.as_ref().is_some_and(|part| id.contains(part)) {
                        println!("{id}\n    {difference}");
                    }
                    differing.insert(id.clone());
                }
                match (difference, known.get(&id).map(String::as_str)) {
                    (_, Some(MOVING)) => {}
                    (Some(difference), None) => new.push(format!("{id}\n    {difference}")),
                    (None, Some(_)) => mended.push(id),
                    _ => {}
                }
            }
        }
    }
    assert!(seen > 3_000, "{seen} requests");
    if std::env::var_os("REPLAY_KNOWN").is_some_and(|v| v == "write") {
        return write_known(&differing);
    }
    assert!(
        new.is_empty() && mended.is_empty(),
        "{} answers differ from upstream's that did not:\n{}\n{} are upstream's now and leave tests/upstream/known.txt:\n{}",
        new.len(),
        new[..new.len().min(SHOWN_MAX)].join("\n"),
        mended.len(),
        mended.join("\n"),
    );
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("upstream")
}

fn golden_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder().join("golden")).expect("golden files");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Ids of answers that are known to differ, with their mark: `decision`, `different` (not yet mended) or `moving`.
/// The path of every recorded request, and whether its answer is upstream's as far as the list of known differences says.
pub fn recorded() -> Vec<(String, bool)> {
    let (known, mut all) = (known(), Vec::new());
    for file in golden_files() {
        let group = file.file_stem().expect("a name").to_string_lossy().into_owned();
        for case in request::cases(&std::fs::read_to_string(&file).expect("a golden file")) {
            let id = |step: &Step| format!("{group}/{}/{}", case.name, step.name);
            all.extend(case.steps.iter().map(|step| (step.path.clone(), !known.contains_key(&id(step)))));
        }
    }
    all
}

fn known() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join("known.txt")).expect("the known differences");
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(mark, id)| (id.to_string(), mark.to_string())).collect()
}

/// `REPLAY_KNOWN=write`: the list becomes what differs now; other marks stay.
fn write_known(differing: &BTreeSet<String>) {
    let mut marks = known();
    marks.retain(|id, mark| mark == MOVING || differing.contains(id));
    for id in differing {
        marks.entry(id.clone()).or_insert_with(|| "different".into());
    }
    let mut lines: Vec<String> = marks.iter().map(|(id, mark)| format!("{mark} {id}\n")).collect();
    lines.sort();
    std::fs::write(folder().join("known.txt"), lines.concat()).expect("a writable work tree");
}

/// Every step's name with how its answer differs from what was recorded.
async fn replay(server: &Server, case: &request::Case) -> Vec<(String, Option<String>)> {
    let mut names = Names::default();
    let (mut raw, mut sent, mut expected) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut results = Vec::new();
    for step in &case.steps {
        let body = step.body(&raw, &sent);
        let answer = send(server, step, &request::fill(&step.path, &raw), body.as_deref(), &raw).await;
        raw.insert(step.name.clone(), serde_json::from_slice(&answer.content).unwrap_or(Value::Null));
        sent.insert(step.name.clone(), body.and_then(|b| serde_json::from_str(&b).ok()).unwrap_or(Value::Null));
        if let Some((path, settled)) = step.settles() {
            settle(server, path, settled).await;
        }
        let (headers, found) = normal::answer(&mut names, step.events.is_some(), &answer);
        let wanted = step.expected(&expected);
        let ours = serde_json::json!({"code": answer.code, "headers": headers, "body": condensed(&found)});
        results.push((step.name.clone(), difference(&wanted, &ours)));
        expected.insert(step.name.clone(), wanted.get("body").cloned().unwrap_or(Value::Null));
    }
    results
}

/// Who comes first, the next request or what happens in the background after this one, would be chance.
async fn settle(server: &Server, path: &str, settled: impl Fn(&Value) -> bool) {
    let until = tokio::time::Instant::now() + SETTLE_MAX;
    while tokio::time::Instant::now() < until {
        let answer = server.get(path).await;
        if answer.code != 200 || settled(&answer.body) {
            return;
        }
        tokio::time::sleep(SETTLE_STEP).await;
    }
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub content: Vec<u8>,
}

async fn send(server: &Server, step: &Step, path: &str, body: Option<&str>, raw: &BTreeMap<String, Value>) -> Answer {
    let headers: Vec<(&str, &str)> = step.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let content = body.map(|b| request::fill(b, raw)).unwrap_or_default();
    let mut request = Server::request(&step.method, path, &headers, &content);
    let admin = UserInfo { uid: "admin".into(), ..UserInfo::new("admin", &["system:masters", "system:authenticated"]) };
    request.extensions_mut().insert(admin);
    let (parts, body) = server.0.handle(request).await.into_parts();
    let content = match step.events {
        // Whoever serves the connection sends no body then.
        _ if step.method == "HEAD" => Vec::new(),
        Some(limit) if parts.status == 200 => events(body, limit).await,
        _ => body.collect().await.expect("a body").to_bytes().to_vec(),
    };
    Answer { code: parts.status.as_u16(), headers: parts.headers, content }
}

/// So many lines of a watch; fewer when no more come.
async fn events(mut body: minik_apiserver::body::Body, limit: usize) -> Vec<u8> {
    let mut content: Vec<u8> = Vec::new();
    let lines = |content: &[u8]| content.iter().filter(|b| **b == b'\n').count();
    while lines(&content) < limit {
        let wait = Duration::from_secs(EVENT_SECONDS_MAX);
        match tokio::time::timeout(wait, body.frame()).await {
            Ok(Some(frame)) => content.extend(frame.expect("a frame").into_data().unwrap_or_else(|_| Bytes::new())),
            Ok(None) => break,
            Err(_) => {
                content.extend(b"{\"type\":\"no more\"}\n");
                break;
            }
        }
    }
    let kept =
        content.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(limit - 1).map_or(content.len(), |(at, _)| at);
    content.truncate(kept);
    content
}

/// The first place where an answer differs.
fn difference(wanted: &Map<String, Value>, ours: &Value) -> Option<String> {
    let (mut wanted, mut ours) = (wanted.clone(), ours.clone());
    if let Some(hash) = wanted.remove("hash") {
        ours["body"] = normal::digest(&ours["body"]).into();
        wanted.insert("body".into(), hash);
    }
    wanted.entry("headers").or_insert_with(|| Value::Object(Map::new()));
    first_difference("", &Value::Object(wanted), &ours)
}

fn first_difference(path: &str, wanted: &Value, ours: &Value) -> Option<String> {
    match (wanted, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
                (Some(x), Some(y)) => first_difference(&format!("{path}.{key}"), x, y),
                (x, y) => Some(format!("{path}.{key}: {}, here {}", shown(x), shown(y))),
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(index, (x, y))| first_difference(&format!("{path}[{index}]"), x, y))
        }
        (a, b) => (a != b).then(|| format!("{path}: {}, here {}", shown(Some(a)), shown(Some(b)))),
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_string(), Value::to_string);
    text.chars().take(300).collect()
}

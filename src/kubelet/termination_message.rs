//! Termination messages: a container's last words.
//!
//! Owns: reading the message file, or the end of the log when the policy says so.
//! Called by: the pod worker, once for each container that ended.
//! Never: reads more than upstream shows.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::observed::{Observed, State};

const MESSAGE_BYTES_MAX: usize = 4096;
/// For FallbackToLogsOnError.
const LOG_BYTES_MAX: u64 = 2048;
const LOG_LINES_MAX: usize = 80;

/// Messages of ended containers by id, each read once.
#[derive(Default)]
pub struct Messages(HashMap<String, String>);

impl Messages {
    /// Puts the messages where the status computation finds them.
    pub fn fill(&mut self, seen: &mut Observed) {
        for container in seen.containers.iter_mut().filter(|c| c.state == State::Exited) {
            let own = self.0.entry(container.id.clone()).or_insert_with(|| {
                let file = read_message(Path::new(&container.termination_message_file));
                let fallback = container.termination_message_policy == "FallbackToLogsOnError";
                match file.is_empty() && fallback && (container.exit_code != 0 || container.reason == "OOMKilled") {
                    true => read_log_end(Path::new(&container.log_path)),
                    false => file,
                }
            });
            if !own.is_empty() {
                // The runtime's own words, such as why a start failed, come first.
                container.message =
                    if container.message.is_empty() { own.clone() } else { format!("{}: {own}", container.message) };
            }
        }
        self.0.retain(|id, _| seen.containers.iter().any(|c| c.id == *id));
    }
}

fn read_message(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        return String::new();
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn read_log_end(path: &Path) -> String {
    // Twice the room: every line carries a timestamp and a stream name in front.
    let window = LOG_BYTES_MAX * 4;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
        let mut bytes = Vec::new();
        file.take(window).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let Ok(text) = read() else { return String::new() };
    let pieces: Vec<(&str, &str)> = text.lines().filter_map(entry).collect();
    let (mut kept, mut size) = (Vec::new(), 0);
    for (text, end) in pieces.into_iter().rev().take(LOG_LINES_MAX) {
        size += text.len() + end.len();
        if size as u64 > LOG_BYTES_MAX {
            break;
        }
        kept.extend([end, text]);
    }
    kept.reverse();
    kept.concat()
}

/// Text of an entry and what follows it: nothing, when the container wrote no line end.
fn entry(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.splitn(4, ' ').skip(2);
    let (tag, text) = (fields.next()?, fields.next()?);
    Some((text, if tag == "P" { "" } else { "\n" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_told_without_its_timestamps() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two words\n")
            .expect("written");
        assert_eq!(read_log_end(&path), "one\ntwo words\n");
        std::fs::write(
            &path,
            "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout P DO\n2026-01-01T00:00:01Z stdout P NE\n",
        )
        .expect("written");
        assert_eq!(read_log_end(&path), "one\nDONE", "no line end that never was");
    }
}

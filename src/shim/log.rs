//! Writes a container's output in the CRI log format: `RFC3339Nano stream P|F text`, one entry a line.
//!
//! Owns: cutting a byte stream into entries, and the log file.
//! Called by: the event loop, with whatever a pipe held.
//! Never: blocks on anything but the file; a full disk loses entries, not the container.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Longer lines are cut into entries tagged `P`; readers join them again. containerd's number.
const ENTRY_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Cuts one stream into entries and keeps the unfinished line.
pub(crate) struct Cutter {
    stream: Stream,
    line: Vec<u8>,
}

impl Cutter {
    pub(crate) fn new(stream: Stream) -> Self {
        Cutter { stream, line: Vec::new() }
    }

    /// Appends the entries that `bytes` completes to `out`.
    pub(crate) fn cut(&mut self, bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.line.extend_from_slice(text);
            while self.line.len() > ENTRY_MAX {
                let rest = self.line.split_off(ENTRY_MAX);
                let full = std::mem::replace(&mut self.line, rest);
                entry(self.stream, b'P', &full, now, out);
            }
            if ended {
                entry(self.stream, b'F', &self.line, now, out);
                self.line.clear();
            }
        }
    }

    /// The stream ended: an unfinished line stays one, so that readers add no line end that never was.
    pub(crate) fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            entry(self.stream, b'P', &self.line, now, out);
            self.line.clear();
        }
    }
}

fn entry(stream: Stream, tag: u8, text: &[u8], now: Timestamp, out: &mut Vec<u8>) {
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{now:.9} {stream} ");
    out.push(tag);
    out.push(b' ');
    out.extend_from_slice(text);
    out.push(b'\n');
}

pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    cutters: [Cutter; 2],
}

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let cutters = [Cutter::new(Stream::Stdout), Cutter::new(Stream::Stderr)];
        Ok(Log { path: path.to_owned(), file: Some(open(path)?), cutters })
    }

    /// The file was renamed away; what follows goes into a new one.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(open(&self.path)?);
        Ok(())
    }

    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        self.cutters[stream as usize].cut(bytes, Timestamp::now(), &mut out);
        self.put(&out);
    }

    pub(crate) fn finish(&mut self) {
        let mut out = Vec::new();
        for cutter in &mut self.cutters {
            cutter.finish(Timestamp::now(), &mut out);
        }
        self.put(&out);
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file {
            // A full disk must not stop the container: its output is lost until there is room again.
            let _ = file.write_all(bytes);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], want: &str) {
        let mut cutter = Cutter::new(Stream::Stdout);
        let mut out = Vec::new();
        for piece in pieces {
            cutter.cut(piece.as_bytes(), Timestamp::UNIX_EPOCH, &mut out);
        }
        cutter.finish(Timestamp::UNIX_EPOCH, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.replace("1970-01-01T00:00:00.000000000Z stdout ", "> "), want);
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_entry() {
        check(&["he", "llo\nwor", "ld\n"], "> F hello\n> F world\n");
    }

    #[test]
    fn an_unfinished_last_line_is_written_when_the_stream_ends() {
        check(&["a\n\nb"], "> F a\n> F \n> P b\n");
    }

    #[test]
    fn a_line_above_16_kib_is_cut_into_partial_entries() {
        let long = "x".repeat(ENTRY_MAX + 3);
        check(&[&long, "y\n"], &format!("> P {}\n> F xxxy\n", "x".repeat(ENTRY_MAX)));
    }
}

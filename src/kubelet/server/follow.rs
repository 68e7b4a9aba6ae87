//! Reading a log file from some line on, and following it while it grows and rotates.
//!
//! Owns: where to begin, noticing growth by inotify, going over to the next file after a rotation.
//! Called by: the logs handler.
//! Never: polls a file for growth.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use notify::Watcher;
use tokio::sync::{mpsc, watch};

use super::log_line::{Format, Options, render};
use crate::log_rotation;

const CHUNK_BYTES: usize = 64 << 10;
/// Written at once to the client; also what a slow client holds up in memory.
const SEND_BYTES: usize = 32 << 10;

pub struct Reading {
    pub path: PathBuf,
    pub options: Options,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// While true more may come; `None` reads to the end and stops.
    pub writing: Option<watch::Receiver<bool>>,
}

/// Sends what there is to `out`; ends when the log does, the limit is reached or nobody listens.
pub async fn read(reading: Reading, out: mpsc::Sender<io::Result<Bytes>>) {
    if let Err(error) = read_all(reading, &out).await {
        tracing::debug!(%error, "log reading ended");
        let _ = out.send(Err(error)).await;
    }
}

struct Sink<'a> {
    out: &'a mpsc::Sender<io::Result<Bytes>>,
    left: Option<u64>,
    pending: Vec<u8>,
}

/// Nobody wants more.
struct Enough;

impl Sink<'_> {
    async fn flush(&mut self) -> Result<(), Enough> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.pending);
        if let Some(left) = &mut self.left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        self.out.send(Ok(bytes.into())).await.map_err(|_| Enough)?;
        if self.left == Some(0) { Err(Enough) } else { Ok(()) }
    }
}

async fn read_all(reading: Reading, out: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut files = open_with_rotated(&reading)?;
    let mut file = files.pop().expect("the log itself is the last");
    let mut sink = Sink { out, left: reading.limit_bytes, pending: Vec::new() };
    let mut rest = Vec::new();
    for mut older in files {
        if drain(&mut older, &mut rest, &reading.options, &mut sink).await?.is_err() {
            return Ok(());
        }
    }
    let Some(mut writing) = reading.writing.clone() else {
        let _ = drain(&mut file, &mut rest, &reading.options, &mut sink).await?;
        return Ok(());
    };
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = watch_directory(&reading.path, changed)?;
    loop {
        // Asked before reading: what was written before the end is then read for sure.
        let more_may_come = *writing.borrow_and_update();
        if drain(&mut file, &mut rest, &reading.options, &mut sink).await?.is_err() {
            return Ok(());
        }
        if let Some(next) = rotated(&file, &reading.path)? {
            file = next;
            continue;
        }
        if !more_may_come {
            return Ok(());
        }
        tokio::select! {
            Some(()) = changes.recv() => {}
            changed = writing.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

/// The log, after the rotated files that hold what was asked for too; each stands where reading begins.
fn open_with_rotated(reading: &Reading) -> io::Result<Vec<File>> {
    let mut current = File::open(&reading.path)?;
    let mut files = Vec::new();
    let mut missing = reading.tail_lines;
    if let Some(lines) = missing {
        missing = Some(lines - seek_tail(&mut current, lines)?);
    }
    files.push(current);
    if reading.options.format == Format::Cri {
        for path in log_rotation::rotated_logs(&reading.path).into_iter().rev() {
            if missing == Some(0) {
                break;
            }
            // Removed by the rotation in between.
            let Ok(mut older) = File::open(&path) else { break };
            if let Some(lines) = missing {
                missing = Some(lines - seek_tail(&mut older, lines)?);
            }
            files.push(older);
        }
    }
    files.reverse();
    Ok(files)
}

/// Everything up to the current end of the file.
async fn drain(
    file: &mut File,
    rest: &mut Vec<u8>,
    options: &Options,
    sink: &mut Sink<'_>,
) -> io::Result<Result<(), Enough>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(sink.flush().await);
        }
        rest.extend_from_slice(&chunk[..read]);
        let mut begin = 0;
        while let Some(length) = rest[begin..].iter().position(|b| *b == b'\n') {
            render(&rest[begin..begin + length], options, &mut sink.pending);
            begin += length + 1;
            if sink.pending.len() >= SEND_BYTES && sink.flush().await.is_err() {
                return Ok(Err(Enough));
            }
        }
        rest.drain(..begin);
    }
}

/// The file that has taken this one's name, if it has been rotated away.
fn rotated(file: &File, path: &Path) -> io::Result<Option<File>> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(now) if now.ino() != open.ino() || now.dev() != open.dev() => File::open(path).map(Some),
        Ok(_) => Ok(None),
        // Between the rename and the reopening.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn watch_directory(path: &Path, changed: mpsc::Sender<()>) -> io::Result<notify::RecommendedWatcher> {
    let to_io = |e: notify::Error| io::Error::other(e);
    let handler = move |_: notify::Result<notify::Event>| {
        // One waiting signal is enough: the reader reads to the end.
        let _ = changed.try_send(());
    };
    let mut watcher = notify::recommended_watcher(handler).map_err(to_io)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    watcher.watch(directory, notify::RecursiveMode::NonRecursive).map_err(to_io)?;
    Ok(watcher)
}

/// Goes to where the last `lines` lines begin, or to the beginning; answers how many lines follow.
fn seek_tail(file: &mut File, lines: u64) -> io::Result<u64> {
    let (at, found) = tail(file, lines)?;
    file.seek(SeekFrom::Start(at))?;
    Ok(found)
}

fn tail(file: &mut File, lines: u64) -> io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    if lines == 0 || length == 0 {
        return Ok((length, 0));
    }
    let mut end = length;
    // The last line is there without a line end before it having been seen.
    let mut seen = 0;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK_BYTES as u64);
        let mut chunk = vec![0; (end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut chunk)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            let at = begin + index as u64;
            // The line end that closes the last line begins no other.
            if *byte == b'\n' && at + 1 != length {
                seen += 1;
                if seen == lines {
                    return Ok((at + 1, lines));
                }
            }
        }
        end = begin;
    }
    Ok((0, seen + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log_line::Streams;
    use std::io::Write;

    fn plain() -> Options {
        Options { format: Format::Plain, since: None, timestamps: false, streams: Streams::All }
    }

    async fn collect(reading: Reading) -> String {
        let (out, mut incoming) = mpsc::channel(4);
        tokio::spawn(read(reading, out));
        let mut text = String::new();
        while let Some(Ok(bytes)) = incoming.recv().await {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }

    #[tokio::test]
    async fn the_tail_and_the_limit_cut_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, "one\ntwo\nthree\n").expect("written");
        let reading = |tail_lines, limit_bytes| Reading {
            path: path.clone(),
            options: plain(),
            tail_lines,
            limit_bytes,
            writing: None,
        };
        assert_eq!(collect(reading(None, None)).await, "one\ntwo\nthree\n");
        assert_eq!(collect(reading(Some(2), None)).await, "two\nthree\n");
        assert_eq!(collect(reading(Some(0), None)).await, "");
        assert_eq!(collect(reading(Some(9), Some(5))).await, "one\nt");
    }

    #[tokio::test]
    async fn rotated_files_are_part_of_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        let lines = |range: std::ops::Range<u32>| {
            range.map(|n| format!("2026-01-01T00:00:00Z stdout F {n}\n")).collect::<String>()
        };
        std::fs::write(dir.path().join("0.log.20260101-000000"), lines(0..2)).expect("written");
        std::fs::write(dir.path().join("0.log.20260102-000000"), lines(2..4)).expect("written");
        std::fs::write(&path, lines(4..6)).expect("written");
        let read = async |tail_lines| {
            let options = Options { format: Format::Cri, ..plain() };
            collect(Reading { path: path.clone(), options, tail_lines, limit_bytes: None, writing: None })
                .await
                .replace('\n', "")
        };
        assert_eq!(read(None).await, "012345");
        assert_eq!(read(Some(1)).await, "5");
        assert_eq!(read(Some(3)).await, "345");
        assert_eq!(read(Some(9)).await, "012345");
        std::fs::write(&path, "").expect("written");
        assert_eq!(read(Some(2)).await, "23");
    }

    #[tokio::test]
    async fn following_goes_on_over_a_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, "one\n").expect("written");
        let (running, writing) = watch::channel(true);
        let (out, mut incoming) = mpsc::channel(4);
        let reading = Reading {
            path: path.clone(),
            options: plain(),
            tail_lines: None,
            limit_bytes: None,
            writing: Some(writing),
        };
        tokio::spawn(read(reading, out));
        let mut next =
            async || String::from_utf8(incoming.recv().await.expect("more").expect("read").to_vec()).expect("text");
        assert_eq!(next().await, "one\n");
        let mut file = File::options().append(true).open(&path).expect("opened");
        file.write_all(b"two\n").expect("written");
        assert_eq!(next().await, "two\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).expect("renamed");
        std::fs::write(&path, "three\n").expect("written");
        assert_eq!(next().await, "three\n");
        running.send_replace(false);
        assert!(incoming.recv().await.is_none());
    }
}

//! What was written since the database was last brought up to date: one record a commit, one after the other.
//!
//! Owns: how a record looks, and which of them count after a crash.
//! Called by: `disk`, once per commit, and once when it opens.
//! Never: knows what is in the database, but for its revision.
//!
//! A commit costs one write in sequence and one sync, where a tree of pages needs many writes all over its file. Records
//! say from which revision to which they lead, so what lies there from before the journal began anew leads nowhere.

use std::sync::Arc;

use redb::StorageBackend;

use crate::event::{Entry, Revision};
use crate::row;
use crate::writer::Overlay;

/// Length and checksum of what follows.
const FRAME: usize = 4 + 4;
/// The revisions before and after.
const SPAN: usize = 8 + 8;
/// Whole blocks are written, so that they can go to the disk as they are. The last one is written again until it is full:
/// by the same bytes up to where it ended, so that nothing is lost with what comes after them.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// The file is written full of zeros this far ahead: to overwrite a block is cheaper than to be given one.
const AHEAD_BYTES: usize = 1 << 20;
const REMOVED: u8 = 0;
const STORED: u8 = 1;

/// Changes of one commit.
pub(crate) struct Record {
    pub from: Revision,
    pub to: Revision,
    pub changes: Vec<(Arc<str>, Option<Entry>)>,
}

pub(crate) struct Journal {
    file: Box<dyn StorageBackend>,
    /// Where the next record begins.
    end: u64,
    length: u64,
    /// What its last block holds so far.
    buffer: Vec<u8>,
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
    }
    fn sized(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.take(count as usize)
    }
}

/// Room for so many bytes, with their number before it.
fn sized(out: &mut Vec<u8>, length: usize) -> &mut [u8] {
    out.extend((length as u32).to_le_bytes());
    let start = out.len();
    out.resize(start + length, 0);
    &mut out[start..]
}

/// Adds a record.
fn encode(out: &mut Vec<u8>, from: Revision, to: Revision, changes: &Overlay) -> std::io::Result<()> {
    let start = out.len();
    out.resize(start + FRAME, 0);
    out.extend(from.0.to_le_bytes());
    out.extend(to.0.to_le_bytes());
    for (key, entry) in changes {
        out.push(if entry.is_some() { STORED } else { REMOVED });
        sized(out, key.len()).copy_from_slice(key.as_bytes());
        if let Some(entry) = entry {
            row::encode(entry, sized(out, row::length(entry)));
        }
    }
    let record = &mut out[start..];
    let length =
        u32::try_from(record.len() - FRAME).map_err(|_| std::io::Error::other("a commit of more than 4 GiB"))?;
    let sum = crc32fast::hash(&record[FRAME..]);
    record[..4].copy_from_slice(&length.to_le_bytes());
    record[4..FRAME].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

fn decode(body: &[u8]) -> Option<Record> {
    let mut body = Reader(body);
    let (from, to) = (Revision(body.u64()?), Revision(body.u64()?));
    let mut changes = Vec::new();
    while !body.0.is_empty() {
        let kind = body.u8()?;
        let key: Arc<str> = std::str::from_utf8(body.sized()?).ok()?.into();
        let entry = if kind == REMOVED { None } else { Some(row::decode(key.clone(), body.sized()?)?) };
        changes.push((key, entry));
    }
    Some(Record { from, to, changes })
}

/// The record at the front, and how long it is with its frame.
fn first(bytes: &[u8]) -> Option<(Record, usize)> {
    let mut reader = Reader(bytes);
    let (length, sum) = (reader.u32()? as usize, reader.u32()?);
    let body = reader.take(length).filter(|body| body.len() >= SPAN && crc32fast::hash(body) == sum)?;
    Some((decode(body)?, FRAME + length))
}

impl Journal {
    /// The records that lead on from `revision`, and the journal, ready for the next.
    pub fn open(file: Box<dyn StorageBackend>, mut revision: Revision) -> std::io::Result<(Journal, Vec<Record>)> {
        let length = file.len()?;
        let mut bytes = vec![0; length as usize];
        file.read(0, &mut bytes)?;
        let (mut records, mut end) = (Vec::new(), 0);
        while let Some((record, size)) = first(&bytes[end..]).filter(|(record, _)| record.from == revision) {
            revision = record.to;
            end += size;
            records.push(record);
        }
        let buffer = bytes[end - end % BLOCK_BYTES..end].to_vec();
        Ok((Journal { file, end: end as u64, length, buffer }, records))
    }

    /// Returns when the changes are on disk.
    pub fn append(&mut self, from: Revision, to: Revision, changes: &Overlay) -> std::io::Result<()> {
        let start = self.end - self.buffer.len() as u64;
        encode(&mut self.buffer, from, to, changes)?;
        let filled = self.buffer.len();
        self.buffer.resize(filled.next_multiple_of(BLOCK_BYTES), 0);
        let end = start + self.buffer.len() as u64;
        if end > self.length {
            let length = end.next_multiple_of(AHEAD_BYTES as u64);
            self.file.set_len(length)?;
            self.file.write(end, &vec![0; (length - end) as usize])?;
            self.length = length;
        }
        self.file.write(start, &self.buffer)?;
        self.file.sync_data()?;
        self.end = start + filled as u64;
        self.buffer.truncate(filled);
        self.buffer.drain(..filled - filled % BLOCK_BYTES);
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Begins anew; everything in it is in the database.
    pub fn restart(&mut self, length_max: u64) -> std::io::Result<()> {
        self.end = 0;
        self.buffer = Vec::new();
        if self.length > length_max {
            self.file.set_len(length_max)?;
            self.length = length_max;
        }
        Ok(())
    }
}

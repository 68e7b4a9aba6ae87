//! A file whose blocks go past the kernel's cache to the disk.
//!
//! Owns: memory that lies as the disk wants it, and going back to the cache where a file system wants that.
//! Called by: `disk`, for the journal.
//! Never: reads past the cache.
//!
//! A small durable write through the cache is a page copied, found again and written back, and then a sync; past it, it is
//! one request that ends when the disk has it.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::journal::BLOCK_BYTES;

/// More is given back after it was needed.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Writes whole blocks at the start of a block; what is not one goes through the cache.
#[derive(Debug)]
pub(crate) struct DirectFile {
    cached: FileBackend,
    /// `None`: the file system does not have such a way.
    direct: Mutex<Option<Direct>>,
    /// Something was written through the cache and not synced since.
    is_unsynced: AtomicBool,
}

#[derive(Debug)]
struct Direct {
    /// A write to it returns when the data are on the disk.
    file: File,
    room: Vec<u8>,
}

impl Direct {
    fn open(path: &Path) -> Option<Direct> {
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path);
        file.ok().map(|file| Direct { file, room: Vec::new() })
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if self.room.len() < data.len() + BLOCK_BYTES {
            self.room = vec![0; data.len() + BLOCK_BYTES];
        }
        let start = self.room.as_ptr().align_offset(BLOCK_BYTES);
        let aligned = &mut self.room[start..start + data.len()];
        aligned.copy_from_slice(data);
        self.file.write_all_at(aligned, offset)?;
        if self.room.len() > KEPT_BYTES_MAX {
            self.room = Vec::new();
        }
        Ok(())
    }
}

impl DirectFile {
    /// `cached` is the same file, with its lock.
    pub fn new(cached: FileBackend, path: &Path) -> Self {
        Self { cached, direct: Mutex::new(Direct::open(path)), is_unsynced: AtomicBool::new(false) }
    }

    /// Whether it was written past the cache.
    fn write_direct(&self, offset: u64, data: &[u8]) -> std::io::Result<bool> {
        if !offset.is_multiple_of(BLOCK_BYTES as u64) || !data.len().is_multiple_of(BLOCK_BYTES) {
            return Ok(false);
        }
        let mut direct = self.direct.lock();
        match direct.as_mut().map(|direct| direct.write(offset, data)) {
            Some(Ok(())) => Ok(true),
            // Its blocks are larger, or it only finds out now that it cannot.
            Some(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
                *direct = None;
                Ok(false)
            }
            Some(Err(error)) => Err(error),
            None => Ok(false),
        }
    }
}

impl StorageBackend for DirectFile {
    fn len(&self) -> std::io::Result<u64> {
        self.cached.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.cached.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.cached.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        if self.is_unsynced.load(Ordering::Relaxed) {
            self.cached.sync_data()?;
            self.is_unsynced.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if self.write_direct(offset, data)? {
            return Ok(());
        }
        self.is_unsynced.store(true, Ordering::Relaxed);
        self.cached.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.cached.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> DirectFile {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("a folder");
        DirectFile::new(FileBackend::new(file).expect("nobody else has it"), path)
    }

    fn content(file: &DirectFile) -> Vec<u8> {
        let mut bytes = vec![0; file.len().expect("it is there") as usize];
        file.read(0, &mut bytes).expect("it is there");
        bytes
    }

    #[test]
    fn blocks_and_what_is_none_end_up_in_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let file = open(&path);
        let mut expected = vec![0; 4 * BLOCK_BYTES];
        file.set_len(expected.len() as u64).expect("there is room");
        // Whole blocks, then bytes of them, then whole blocks again, more at once than are kept room for.
        for (offset, length, byte) in
            [(BLOCK_BYTES, BLOCK_BYTES, 1), (100, 5000, 2), (0, BLOCK_BYTES, 3), (BLOCK_BYTES, 40 * BLOCK_BYTES, 4)]
        {
            let data = vec![byte; length];
            file.write(offset as u64, &data).expect("there is room");
            file.sync_data().expect("there is room");
            expected.resize(expected.len().max(offset + length), 0);
            expected[offset..offset + length].copy_from_slice(&data);
            assert_eq!(content(&file), expected, "{offset} {length}");
        }
        drop(file);
        assert_eq!(content(&open(&path)), expected);
    }

    #[test]
    fn a_file_system_that_refuses_direct_writes_gets_them_through_the_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let file = open(&path);
        // It takes numbers only, and says of all else what such a file system says of a block.
        let numbers = OpenOptions::new().write(true).open("/proc/self/oom_score_adj").expect("Linux has it");
        *file.direct.lock() = Some(Direct { file: numbers, room: Vec::new() });
        file.write(0, &[1; BLOCK_BYTES]).expect("there is room");
        assert!(file.direct.lock().is_none(), "it is not asked again");
        file.sync_data().expect("there is room");
        assert_eq!(content(&file), [1; BLOCK_BYTES]);
    }
}

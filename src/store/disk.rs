//! The file that the current entries survive in.
//!
//! Owns: the tables in redb and how an entry looks there.
//! Called by: the writer thread, once per commit; `Store::open`, once.
//! Never: holds history: after a restart watches resume from the newest revision or start over.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::error::Error;
use crate::event::{Entry, Revision};
use crate::writer::Overlay;

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
/// created, modified, hole; then the value.
const HEADER: usize = 8 + 8 + 4;
/// Everything is in memory anyway, so redb needs only the pages it is writing.
const CACHE_BYTES: usize = 4 << 20;
const MODE: u32 = 0o600;

pub(crate) struct Disk {
    database: Database,
    /// The first failure. redb refuses to go on after one, and so do we: what is on disk is not known any more.
    broken: Mutex<Option<Error>>,
}

pub(crate) struct Loaded {
    pub disk: Disk,
    pub entries: BTreeMap<Arc<str>, Entry>,
    pub revision: Revision,
}

pub(crate) fn open(path: &Path) -> Result<Loaded, Error> {
    let named = |e: redb::DatabaseError| Error::Open(format!("{}: {e}", path.display()));
    let file = open_file(path).map_err(|e| Error::Open(format!("{}: {e}", path.display())))?;
    let backend = FileBackend::new(file).map_err(named)?;
    load(Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(named)?)
}

/// Secrets are in it, so nobody else may read it, in whatever folder it lies.
fn open_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

/// For tests that fail or cut off the IO.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests bring a backend of their own"))]
pub(crate) fn open_backend(backend: impl StorageBackend) -> Result<Loaded, Error> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
    load(database.map_err(|e| Error::Open(e.to_string()))?)
}

fn load(database: Database) -> Result<Loaded, Error> {
    let (entries, revision) = read_all(&database).map_err(|e| Error::Open(e.to_string()))?;
    Ok(Loaded { disk: Disk { database, broken: Mutex::new(None) }, entries, revision })
}

fn read_all(database: &Database) -> Result<(BTreeMap<Arc<str>, Entry>, Revision), redb::Error> {
    let mut entries = BTreeMap::new();
    let read = database.begin_read()?;
    let table = match read.open_table(ENTRIES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok((entries, Revision(1))),
        Err(error) => return Err(error.into()),
    };
    for row in table.iter()? {
        let (key, row) = row?;
        let key: Arc<str> = key.value().into();
        let entry = decode(key.clone(), row.value());
        let entry = entry.ok_or_else(|| redb::Error::Corrupted(format!("the row of {key:?} is too short")))?;
        entries.insert(key, entry);
    }
    let revision = read.open_table(META)?.get(REVISION)?.map_or(1, |v| v.value());
    Ok((entries, Revision(revision)))
}

fn decode(key: Arc<str>, row: &[u8]) -> Option<Entry> {
    let (created, rest) = row.split_first_chunk::<8>()?;
    let (modified, rest) = rest.split_first_chunk::<8>()?;
    let (hole, value) = rest.split_first_chunk::<4>()?;
    Some(Entry {
        key,
        value: Bytes::from(Box::<[u8]>::from(value)),
        created: Revision(u64::from_le_bytes(*created)),
        modified: Revision(u64::from_le_bytes(*modified)),
        hole: u32::from_le_bytes(*hole),
    })
}

fn encode(entry: &Entry, row: &mut [u8]) {
    row[..8].copy_from_slice(&entry.created.0.to_le_bytes());
    row[8..16].copy_from_slice(&entry.modified.0.to_le_bytes());
    row[16..HEADER].copy_from_slice(&entry.hole.to_le_bytes());
    row[HEADER..].copy_from_slice(&entry.value);
}

impl Disk {
    /// Returns when the changes are on disk.
    pub fn commit(&self, changes: &Overlay, revision: Revision) -> Result<(), Error> {
        if let Some(error) = self.broken.lock().clone() {
            return Err(error);
        }
        self.write(changes, revision).map_err(|error| {
            tracing::error!(%error, "the store's file could not be written; no more writes are taken");
            let error = Error::Disk(error.to_string());
            *self.broken.lock() = Some(error.clone());
            error
        })
    }

    fn write(&self, changes: &Overlay, revision: Revision) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            for (key, entry) in changes {
                match entry {
                    Some(entry) => {
                        let mut row = entries.insert_reserve(&**key, HEADER + entry.value.len())?;
                        encode(entry, row.as_mut());
                    }
                    None => drop(entries.remove(&**key)?),
                }
            }
            transaction.open_table(META)?.insert(REVISION, revision.0)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

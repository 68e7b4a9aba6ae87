//! The files that the current entries survive in: a database, and beside it the journal of what the database does not have yet.
//!
//! Owns: the tables in redb, and when the journal is brought into them.
//! Called by: the writer, once per commit; `Store::open`, once.
//! Never: holds history: after a restart watches resume from the newest revision or start over.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::direct::DirectFile;
use crate::error::Error;
use crate::event::{Entry, Revision};
use crate::journal::Journal;
use crate::row;
use crate::writer::Overlay;

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
/// Everything is in memory anyway, so redb needs only the pages it is writing.
const CACHE_BYTES: usize = 4 << 20;
const MODE: u32 = 0o600;
/// What the journal may hold before the database gets it: some thousand objects, which take it some hundredths of a second,
/// at once and at the next start.
const JOURNAL_BYTES_MAX: u64 = 4 << 20;

pub(crate) struct Disk {
    database: Database,
    journal: Journal,
    journal_bytes_max: u64,
    /// What the journal holds, each key's last.
    pending: BTreeMap<Arc<str>, Option<Entry>>,
    /// Up to where the journal leads.
    revision: Revision,
    /// The first failure. redb refuses to go on after one, and so do we: what is on disk is not known any more.
    broken: Option<Error>,
}

pub(crate) struct Loaded {
    pub disk: Disk,
    pub entries: BTreeMap<Arc<str>, Entry>,
    pub revision: Revision,
}

/// The database is at `path`, the journal beside it.
pub(crate) fn open(path: &Path) -> Result<Loaded, Error> {
    let file = |path: &Path| {
        let named = |e: &dyn std::fmt::Display| Error::Open(format!("{}: {e}", path.display()));
        FileBackend::new(open_file(path).map_err(|e| named(&e))?).map_err(|e| named(&e))
    };
    // The database's lock is on both.
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file(path)?);
    let database = database.map_err(|e| Error::Open(format!("{}: {e}", path.display())))?;
    let path = path.with_extension("journal");
    let journal = DirectFile::new(file(&path)?, &path);
    load(database, Box::new(journal), JOURNAL_BYTES_MAX)
}

/// Secrets are in it, so nobody else may read it, in whatever folder it lies.
fn open_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

/// For tests that fail or cut off the IO.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests bring backends of their own"))]
pub(crate) fn open_backends(
    database: impl StorageBackend,
    journal: impl StorageBackend,
    journal_bytes_max: u64,
) -> Result<Loaded, Error> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(database);
    load(database.map_err(|e| Error::Open(e.to_string()))?, Box::new(journal), journal_bytes_max)
}

fn load(database: Database, journal: Box<dyn StorageBackend>, journal_bytes_max: u64) -> Result<Loaded, Error> {
    let (mut entries, mut revision) = read_all(&database).map_err(|e| Error::Open(e.to_string()))?;
    let (journal, records) = Journal::open(journal, revision).map_err(|e| Error::Open(format!("the journal: {e}")))?;
    let mut pending = BTreeMap::new();
    for record in records {
        revision = record.to;
        for (key, entry) in record.changes {
            match &entry {
                Some(entry) => drop(entries.insert(key.clone(), entry.clone())),
                None => drop(entries.remove(&key)),
            }
            pending.insert(key, entry);
        }
    }
    let disk = Disk { database, journal, journal_bytes_max, pending, revision, broken: None };
    Ok(Loaded { disk, entries, revision })
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
        let entry = row::decode(key.clone(), row.value());
        let entry = entry.ok_or_else(|| redb::Error::Corrupted(format!("the row of {key:?} is too short")))?;
        entries.insert(key, entry);
    }
    let revision = read.open_table(META)?.get(REVISION)?.map_or(1, |v| v.value());
    Ok((entries, Revision(revision)))
}

impl Disk {
    /// Returns when the changes are on disk.
    pub fn commit(&mut self, changes: &Overlay, revision: Revision) -> Result<(), Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if let Err(error) = self.journal.append(self.revision, revision, changes) {
            return Err(self.fail(&error));
        }
        self.pending.extend(changes.iter().map(|(key, entry)| (key.clone(), entry.clone())));
        self.revision = revision;
        Ok(())
    }

    /// The journal holds so much that the database should get it.
    pub fn is_full(&self) -> bool {
        self.journal.bytes() > self.journal_bytes_max
    }

    /// At the end: the next start finds everything in the database.
    pub fn close(mut self) {
        if !self.pending.is_empty() {
            self.flush();
        }
    }

    /// Between two commits: the database gets what has come together in the journal. A failure is told to the next one.
    pub fn flush(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let flushed = self.write().and_then(|()| Ok(self.journal.restart(self.journal_bytes_max)?));
        match flushed {
            Ok(()) => self.pending.clear(),
            Err(error) => drop(self.fail(&error)),
        }
    }

    fn fail(&mut self, error: &dyn std::fmt::Display) -> Error {
        tracing::error!(%error, "the store's file could not be written; no more writes are taken");
        self.broken.insert(Error::Disk(error.to_string())).clone()
    }

    fn write(&self) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            for (key, entry) in &self.pending {
                match entry {
                    Some(entry) => {
                        let mut row = entries.insert_reserve(&**key, row::length(entry))?;
                        row::encode(entry, row.as_mut());
                    }
                    None => drop(entries.remove(&**key)?),
                }
            }
            transaction.open_table(META)?.insert(REVISION, self.revision.0)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

//! What the disk may do to the store, and what the store still owes: every write that was acknowledged.
//!
//! The disk here is memory that remembers what was written and what was synced, for each of its two files. A crash keeps
//! all that was synced and any part of what was written since.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::*;
use crate::disk::open_backends;

#[derive(Clone, Debug)]
enum Operation {
    Length(u64),
    Write(u64, Vec<u8>),
}

#[derive(Debug, Default)]
struct Platter {
    /// As it is when everything arrives.
    now: Vec<u8>,
    synced: Vec<u8>,
    since: Vec<Operation>,
}

impl Platter {
    /// What a crash may leave: the synced image and of the later operations what `kept` lets through.
    fn crashed(&self, kept: impl Fn(usize) -> Kept) -> Vec<u8> {
        let mut image = self.synced.clone();
        for (index, operation) in self.since.iter().enumerate() {
            match (kept(index), operation) {
                (Kept::Nothing, _) => {}
                (Kept::Half, Operation::Write(offset, data)) => {
                    act(&mut image, &Operation::Write(*offset, data[..data.len() / 2].to_vec()));
                }
                (Kept::Half | Kept::Whole, operation) => act(&mut image, operation),
            }
        }
        image
    }
}

/// How much of an operation arrived before a crash.
#[derive(Clone, Copy)]
enum Kept {
    Nothing,
    /// The first half of what was written.
    Half,
    Whole,
}

fn act(image: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Length(length) => image.resize(*length as usize, 0),
        Operation::Write(offset, data) => {
            let end = *offset as usize + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*offset as usize..end].copy_from_slice(data);
        }
    }
}

/// The database and the journal.
type Files<T> = [T; 2];
/// Writes acknowledged so far, and the files as they were then.
type Images = Vec<(usize, Files<Vec<u8>>)>;

#[derive(Clone, Debug, Default)]
struct FakeDisk {
    platters: Arc<Files<Mutex<Platter>>>,
    /// How many writes and syncs still work; `None`: all.
    left: Option<Arc<AtomicUsize>>,
    /// Images that a crash may leave, each with the number of writes acknowledged before it was taken.
    images: Arc<Mutex<Images>>,
    /// No images are needed.
    only_works: bool,
    acknowledged: Arc<AtomicUsize>,
    /// What every sync takes, and the threads that waited for one.
    sync_takes: Duration,
    waited: Arc<Mutex<Vec<ThreadId>>>,
}

fn broken() -> std::io::Error {
    std::io::Error::other("the disk is broken")
}

/// One of the files.
#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    index: usize,
}

impl FakeDisk {
    fn of(images: Files<Vec<u8>>) -> Self {
        let platters = images.map(|image| Mutex::new(Platter { now: image.clone(), synced: image, since: Vec::new() }));
        Self { platters: Arc::new(platters), ..Self::default() }
    }

    fn file(&self, index: usize) -> FakeFile {
        FakeFile { disk: self.clone(), index }
    }

    fn crashed(&self, kept: impl Fn(usize) -> Kept) -> Files<Vec<u8>> {
        std::array::from_fn(|file| self.platters[file].lock().crashed(&kept))
    }

    fn spend(&self) -> Result<(), std::io::Error> {
        let Some(left) = &self.left else { return Ok(()) };
        let worked = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if worked { Ok(()) } else { Err(broken()) }
    }
}

impl FakeFile {
    fn platter(&self) -> &Mutex<Platter> {
        &self.disk.platters[self.index]
    }

    fn perform(&self, operation: Operation) -> Result<(), std::io::Error> {
        self.disk.spend()?;
        let mut platter = self.platter().lock();
        act(&mut platter.now, &operation);
        platter.since.push(operation);
        Ok(())
    }
}

impl StorageBackend for FakeFile {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.platter().lock().now.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let platter = self.platter().lock();
        let end = offset as usize + out.len();
        out.copy_from_slice(platter.now.get(offset as usize..end).ok_or_else(broken)?);
        Ok(())
    }
    fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
        self.perform(Operation::Length(length))
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.perform(Operation::Write(offset, data.to_vec()))
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.disk.spend()?;
        std::thread::sleep(self.disk.sync_takes);
        self.disk.waited.lock().push(std::thread::current().id());
        if !self.disk.only_works {
            self.take_images();
        }
        let Platter { synced, since, .. } = &mut *self.platter().lock();
        since.drain(..).for_each(|operation| act(synced, &operation));
        Ok(())
    }
}

impl FakeFile {
    fn take_images(&self) {
        let acknowledged = self.disk.acknowledged.load(Ordering::SeqCst);
        // Crashes just before this sync: of the operations nothing, every other one, all but the last, all but half of
        // the last arrived.
        let last = self.platter().lock().since.len().saturating_sub(1);
        let before_last = |i, kept| if i < last { Kept::Whole } else { kept };
        let crashes = [
            self.disk.crashed(|_| Kept::Nothing),
            self.disk.crashed(|i| if i % 2 == 0 { Kept::Whole } else { Kept::Nothing }),
            self.disk.crashed(|i| before_last(i, Kept::Nothing)),
            self.disk.crashed(|i| before_last(i, Kept::Half)),
        ];
        self.disk.images.lock().extend(crashes.map(|files| (acknowledged, files)));
    }
}

/// So little that the journal begins anew every few steps.
const JOURNAL_BYTES_MAX: u64 = 3000;

fn open(disk: &FakeDisk) -> Result<Store, Error> {
    Store::from_disk(open_backends(disk.file(0), disk.file(1), JOURNAL_BYTES_MAX)?, Options::default())
}

fn value(step: usize) -> Encode {
    let text = format!("{step}/{}@", "x".repeat(step * 37 % 900));
    let hole = text.len();
    Encode::with_hole(text, hole)
}

/// One write after the other, until one fails; answers with how many were acknowledged.
async fn work(store: &Store, disk: &FakeDisk, steps: usize) -> usize {
    for step in 0..steps {
        let key = format!("k/{}", step % 17);
        let outcome = match store.get(&key) {
            None => store.create(&key, value(step)).await,
            Some(_) if step % 5 == 0 => store.delete(&key, None).await,
            Some(entry) => store.update(&key, entry.modified, value(step)).await,
        };
        if outcome.is_err() {
            return step;
        }
        disk.acknowledged.store(step + 1, Ordering::SeqCst);
    }
    steps
}

/// What the store holds after each number of steps, by the same work on a disk that is whole.
async fn history(steps: usize) -> Vec<Vec<(String, Vec<u8>)>> {
    let disk = FakeDisk::default();
    let store = open(&disk).expect("an empty disk");
    let mut states = vec![contents(&store)];
    for step in 0..steps {
        let key = format!("k/{}", step % 17);
        let outcome = match store.get(&key) {
            None => store.create(&key, value(step)).await,
            Some(_) if step % 5 == 0 => store.delete(&key, None).await,
            Some(entry) => store.update(&key, entry.modified, value(step)).await,
        };
        outcome.expect("the disk is whole");
        states.push(contents(&store));
    }
    states
}

fn contents(store: &Store) -> Vec<(String, Vec<u8>)> {
    let page = store.range(&Range::default()).expect("now");
    page.entries.iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect()
}

const STEPS: usize = 60;

#[tokio::test]
async fn a_crash_at_any_sync_loses_no_acknowledged_write_and_shows_no_half_of_one() {
    let states = history(STEPS).await;
    let disk = FakeDisk::default();
    let store = open(&disk).expect("an empty disk");
    assert_eq!(work(&store, &disk, STEPS).await, STEPS);
    drop(store);
    let images = std::mem::take(&mut *disk.images.lock());
    assert!(images.len() >= 4 * STEPS, "there was a sync for every write");
    for (acknowledged, files) in images {
        let found = match open(&FakeDisk::of(files)) {
            Ok(store) => {
                let steps = store.revision().0 as usize - 1;
                assert!(steps >= acknowledged, "{acknowledged} were acknowledged, {steps} are there");
                assert_eq!(contents(&store), states[steps], "after {steps} steps");
                continue;
            }
            Err(error) => error,
        };
        assert_eq!(acknowledged, 0, "only a file that was never finished may be refused: {found}");
    }
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    let states = history(STEPS).await;
    for budget in (0..400).step_by(7) {
        let disk = FakeDisk { left: Some(Arc::new(AtomicUsize::new(budget))), ..FakeDisk::default() };
        let Ok(store) = open(&disk) else { continue };
        let acknowledged = work(&store, &disk, STEPS).await;
        if acknowledged < STEPS {
            let again = store.create("later/x", value(1)).await;
            assert!(matches!(again, Err(Error::Disk(_))), "a store whose disk failed takes no more writes");
            assert_eq!(contents(&store), states[acknowledged], "readers see what was acknowledged");
        }
        drop(store);
        let store = match open(&FakeDisk::of(disk.crashed(|_| Kept::Nothing))) {
            Ok(store) => store,
            Err(error) => {
                assert_eq!(acknowledged, 0, "budget {budget}: {error}");
                continue;
            }
        };
        let steps = store.revision().0 as usize - 1;
        assert!(steps >= acknowledged, "budget {budget}: {acknowledged} were acknowledged, {steps} are there");
        assert_eq!(contents(&store), states[steps]);
    }
}

/// The threads that waited for the disk while one caller wrote so often, whether it was this one.
async fn waiting(sync_takes: Duration, writes: usize) -> Vec<bool> {
    let disk = FakeDisk { only_works: true, sync_takes, ..FakeDisk::default() };
    let backends = open_backends(disk.file(0), disk.file(1), 1 << 20).expect("an empty disk");
    let store = Store::from_disk(backends, Options::default()).expect("opened");
    disk.waited.lock().clear();
    for step in 0..writes {
        store.create(&format!("k/{step}"), value(step)).await.expect("created");
    }
    disk.waited.lock().iter().map(|thread| *thread == std::thread::current().id()).collect()
}

#[tokio::test]
async fn a_caller_waits_for_a_quick_disk_itself_and_for_a_slow_one_never() {
    let quick = waiting(Duration::ZERO, 200).await;
    assert!(!quick[0], "what the disk is like is not known before the first commit");
    assert!(quick.iter().any(|here| *here), "of {} commits none was made by its caller", quick.len());
    let slow = waiting(Duration::from_millis(2), 20).await;
    assert_eq!(slow, [false; 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_once_lose_nothing_wherever_their_commits_are_made() {
    const WRITERS: usize = 16;
    const WRITES: usize = 60;
    let disk = FakeDisk { only_works: true, ..FakeDisk::default() };
    let store = open(&disk).expect("an empty disk");
    let writer = |writer: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = format!("k/{writer:02}");
            let mut entry = store.create(&key, value(0)).await.expect("created");
            for step in 1..WRITES {
                entry = store.update(&key, entry.modified, value(step)).await.expect("nobody else writes it");
            }
            (key, entry.value.to_vec())
        })
    };
    let mut last: Vec<(String, Vec<u8>)> = Vec::new();
    for writer in (0..WRITERS).map(writer).collect::<Vec<_>>() {
        last.push(writer.await.expect("no panic"));
    }
    assert_eq!(store.revision().0 as usize, 1 + WRITERS * WRITES, "each write is a revision");
    assert_eq!(contents(&store), last);
    let found = open(&FakeDisk::of(disk.crashed(|_| Kept::Nothing))).expect("what was synced is whole");
    assert_eq!(contents(&found), last);
}

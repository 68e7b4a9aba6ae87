//! The store against a plain map, against an IO that fails, and against a crash.

use std::collections::BTreeMap;

use super::*;

fn value(text: &str) -> Encode {
    Encode::with_hole(format!("{text}@."), text.len() + 1)
}

fn show(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|e| format!("{}={}", e.key, String::from_utf8_lossy(&e.value))).collect()
}

#[tokio::test]
async fn a_value_knows_the_revision_it_was_written_at() {
    let store = Store::memory();
    let entry = store.create("a/x", value("one")).await.expect("created");
    assert_eq!((&entry.value[..], entry.modified), (&b"one@2."[..], Revision(2)));
    let entry = store.update("a/x", Revision(2), value("two")).await.expect("updated");
    assert_eq!((&entry.value[..], entry.created), (&b"two@3."[..], Revision(2)));
    let gone = store.delete("a/x", None).await.expect("deleted");
    assert_eq!(&gone.value[..], b"two@4.", "a deletion shows the last value at its own revision");
    assert!(store.get("a/x").is_none());
}

#[tokio::test]
async fn a_write_that_expects_another_state_changes_nothing() {
    let store = Store::memory();
    store.create("a/x", value("1")).await.expect("created");
    assert!(matches!(store.create("a/x", value("2")).await, Err(Error::Exists { .. })));
    assert!(matches!(store.update("a/x", Revision(9), value("2")).await, Err(Error::Conflict { .. })));
    assert!(matches!(store.update("a/y", Revision(2), value("2")).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.delete("a/x", Some(Revision(1))).await, Err(Error::Conflict { .. })));
    assert_eq!(store.revision(), Revision(2));
}

#[tokio::test]
async fn writes_together_happen_all_or_none() {
    let store = Store::memory();
    store.create("ip/1", value("a")).await.expect("created");
    let create = |key: &str| Write::Create { key: key.into(), value: value("b") };
    let both = store.transact(vec![create("service/web"), create("ip/1")]).await;
    assert!(matches!(both, Err(Error::Exists { key }) if key == "ip/1"));
    assert!(store.get("service/web").is_none());
    store.transact(vec![create("service/web"), create("ip/2")]).await.expect("both are free");
    assert_eq!(store.revision(), Revision(4));
}

#[tokio::test]
async fn pages_of_an_old_snapshot_do_not_see_what_came_later() {
    let store = Store::memory();
    for name in ["a", "b", "c", "d"] {
        store.create(&format!("pods/{name}"), value(name)).await.expect("created");
    }
    let first = store.range(&Range { prefix: "pods/", limit: 2, ..Range::default() }).expect("a page");
    assert_eq!((show(&first.entries), first.remaining), (vec!["pods/a=a@2.".into(), "pods/b=b@3.".into()], 2));
    store.delete("pods/c", None).await.expect("deleted");
    store.update("pods/d", Revision(5), value("new")).await.expect("updated");
    store.create("pods/e", value("e")).await.expect("created");
    let range = Range { prefix: "pods/", start_after: Some("pods/b"), limit: 2, at: Some(first.revision) };
    let second = store.range(&range).expect("a page");
    assert_eq!(show(&second.entries), ["pods/c=c@4.", "pods/d=d@5."]);
    assert_eq!(second.remaining, 0);
}

#[tokio::test]
async fn a_watch_replays_history_then_follows() {
    let store = Store::memory();
    store.create("pods/a/x", value("1")).await.expect("created");
    store.create("nodes/n", value("1")).await.expect("created");
    let mut watch = store.watch("pods/", Revision(1)).expect("in history");
    let batch = watch.next().await.expect("an event");
    assert_eq!((batch.events.len(), batch.revision), (1, Revision(3)));
    let (event, _) = tokio::join!(watch.next(), store.delete("pods/a/x", None));
    let batch = event.expect("an event");
    assert_eq!(batch.events[0].kind, EventKind::Delete);
    assert_eq!(batch.events[0].previous.as_ref().expect("the old value").modified, Revision(2));
    store.create("nodes/m", value("1")).await.expect("created");
    let idle = watch.poll().expect("nothing");
    assert_eq!((idle.events.len(), idle.revision), (0, Revision(5)), "nothing for pods up to here: a bookmark");
}

#[tokio::test]
async fn a_folder_is_empty_when_its_last_key_is_gone_and_not_before() {
    let store = Store::memory();
    let keys = |prefix: &str, at: Option<Revision>| {
        let page = store.range(&Range { prefix, at, ..Range::default() }).expect("a page");
        page.entries.iter().map(|e| e.key.to_string()).collect::<Vec<_>>()
    };
    let first = store.create("pods/a", value("1")).await.expect("created");
    let second = store.create("pods/n/b", value("1")).await.expect("created");
    store.update("pods/a", first.modified, value("2")).await.expect("updated");
    store.delete("pods/a", None).await.expect("deleted");
    assert_eq!(keys("pods/", None), ["pods/n/b"]);
    store.delete("pods/n/b", None).await.expect("deleted");
    assert!(keys("pods/", None).is_empty() && keys("pods/n/", None).is_empty() && keys("", None).is_empty());
    assert_eq!(keys("pods/", Some(second.modified)), ["pods/a", "pods/n/b"], "as it was");
    store.create("pods/c", value("1")).await.expect("created");
    assert_eq!((keys("pods/", None), keys("", None)), (vec!["pods/c".into()], vec!["pods/c".into()]));
}

#[tokio::test]
async fn a_prefix_without_a_slash_is_one_key() {
    let store = Store::memory();
    let mut watch = store.watch("pods/a", Revision(1)).expect("in history");
    store.create("pods/ab", value("1")).await.expect("created");
    store.create("pods/a", value("1")).await.expect("created");
    let batch = watch.next().await.expect("an event");
    assert_eq!(batch.events.iter().map(|e| &*e.entry.key).collect::<Vec<_>>(), ["pods/a"]);
    assert_eq!(store.range(&Range { prefix: "pods/a", ..Range::default() }).expect("a page").entries.len(), 1);
}

#[tokio::test]
async fn a_range_ends_where_its_folder_does_and_begins_behind_what_was_seen() {
    let store = Store::memory();
    for key in ["pods", "pods-x", "pods.x/a", "pods/a", "pods/a/b", "pods/z", "pods0", "pods0/a"] {
        store.create(key, value("v")).await.expect("created");
    }
    let keys = |prefix: &str, start_after: Option<&str>| {
        let page = store.range(&Range { prefix, start_after, ..Range::default() }).expect("a page");
        page.entries.iter().map(|e| e.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys("pods/", None), ["pods/a", "pods/a/b", "pods/z"]);
    assert_eq!(keys("pods/", Some("pods/a")), ["pods/a/b", "pods/z"]);
    assert_eq!(keys("pods/", Some("a")), ["pods/a", "pods/a/b", "pods/z"], "begins before its folder");
    for beyond in ["pods/z", "pods0", "pods0/a", "z"] {
        assert!(keys("pods/", Some(beyond)).is_empty(), "behind {beyond}");
    }
    assert_eq!(keys("pods", None), ["pods"]);
    assert!(keys("pods", Some("pods")).is_empty() && keys("pods", Some("pods/a")).is_empty());
    assert_eq!(keys("", Some("pods/z")), ["pods0", "pods0/a"]);
    assert_eq!(keys("", None).len(), 8);
    let page = store.range(&Range { prefix: "pods/", limit: 1, ..Range::default() }).expect("a page");
    assert_eq!(page.remaining, 2, "what lies behind the folder is not counted");
}

#[tokio::test]
async fn history_is_bounded_and_says_so() {
    let store = Store::memory_with(Options { history_events_max: 3, ..Options::default() });
    let mut slow = store.watch("a/", Revision(1)).expect("in history");
    for i in 0..10 {
        store.create(&format!("a/{i}"), value("v")).await.expect("created");
    }
    assert_eq!(store.compacted(), Revision(8));
    assert!(matches!(slow.next().await, Err(Error::Compacted { .. })), "a watch that lost events must end");
    assert!(matches!(store.watch("a/", Revision(7)), Err(Error::Compacted { .. })));
    assert!(store.watch("a/", Revision(8)).is_ok());
    let old = Range { prefix: "a/", at: Some(Revision(7)), ..Range::default() };
    assert!(matches!(store.range(&old), Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn a_reopened_store_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    {
        let store = Store::open(&path).expect("opened");
        store.create("a/x", value("one")).await.expect("created");
        store.create("a/y", value("two")).await.expect("created");
        store.delete("a/x", None).await.expect("deleted");
    }
    let store = reopen(&path).await;
    assert_eq!(store.revision(), Revision(4), "the revision of a deletion is not given out again");
    assert_eq!(show(&store.range(&Range::default()).expect("all").entries), ["a/y=two@3."]);
    let entry = store.delete("a/y", Some(Revision(3))).await.expect("deleted");
    assert_eq!(&entry.value[..], b"two@5.", "where the revision stands survives, too");
}

/// The thread of a dropped store lets go of the file a moment later.
async fn reopen(path: &std::path::Path) -> Store {
    for _ in 0..200 {
        match Store::open(path) {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    }
    panic!("the store at {} stays locked", path.display());
}

/// A generator that is the same in every run (Numerical Recipes' constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn the_store_is_a_map_whatever_is_done_to_it() {
    let store = Store::memory_with(Options { history_events_max: 200, ..Options::default() });
    let mut model: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut snapshots: Vec<(Revision, Vec<String>)> = Vec::new();
    let mut watched: BTreeMap<String, u64> = BTreeMap::new();
    let mut watch = store.watch("k/", Revision(1)).expect("in history");
    let mut dice = Dice(7);
    for step in 0..3000u64 {
        let key = format!("k/{}", dice.roll(20));
        let known = model.get(&key).copied();
        match dice.roll(3) {
            0 => match store.create(&key, value(&step.to_string())).await {
                Ok(e) => assert!(known.is_none() && model.insert(key, (e.modified.0, step)).is_none()),
                Err(_) => assert!(known.is_some()),
            },
            1 => match store.update(&key, Revision(known.map_or(0, |k| k.0)), value(&step.to_string())).await {
                Ok(e) => assert!(model.insert(key, (e.modified.0, step)).is_some()),
                Err(_) => assert!(known.is_none()),
            },
            _ => assert_eq!(store.delete(&key, None).await.is_ok(), model.remove(&key).is_some()),
        }
        let expected: Vec<String> = model.iter().map(|(k, (r, s))| format!("{k}={s}@{r}.")).collect();
        assert_eq!(show(&store.range(&Range::default()).expect("now").entries), expected);
        snapshots.push((store.revision(), expected));
        let (at, then) = &snapshots[dice.roll(snapshots.len() as u64) as usize];
        match store.range(&Range { at: Some(*at), ..Range::default() }) {
            Ok(page) => assert_eq!(&show(&page.entries), then),
            Err(_) => assert!(*at < store.compacted()),
        }
        if dice.roll(10) == 0 {
            for event in watch.poll().expect("not compacted").events {
                match event.kind {
                    EventKind::Delete => assert!(watched.remove(&*event.entry.key).is_some()),
                    _ => drop(watched.insert(event.entry.key.to_string(), event.revision().0)),
                }
            }
            assert_eq!(watched, model.iter().map(|(k, v)| (k.clone(), v.0)).collect());
        }
    }
}

#[test]
fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state.redb");
    // As an older version left it.
    std::fs::write(&path, []).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
    let _store = Store::open(&path).expect("opened");
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
}

//! Merges a cluster into the user's kubeconfig and takes it out again.
//!
//! Owns: which file, the lock, the atomic write with mode 0600, and the entries of one profile.
//! Called by: `start`, `delete`, `status`, `kubectl`.
//! Never: changes an entry of another name.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

/// A lock older than this was left by a process that died; kubectl's own is held for milliseconds.
const LOCK_STALE_SECONDS: u64 = 30;

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("could not {what}")]
    Io { what: &'static str, source: io::Error },
    #[error("it is not valid YAML")]
    Parse(#[from] serde_yaml::Error),
    #[error("its field `{0}` is not a list")]
    NotAList(&'static str),
    #[error("its top is not a mapping")]
    NotAMapping,
    #[error("another process holds {0}")]
    Locked(PathBuf),
}

/// What a cluster's entries say. Certificates are PEM.
pub struct Entry<'a> {
    pub profile: &'a str,
    pub server: &'a str,
    pub ca: &'a str,
    pub certificate: &'a str,
    pub key: &'a str,
}

/// The files of `$KUBECONFIG`, or `~/.kube/config`.
pub fn files() -> Vec<PathBuf> {
    let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|v| std::env::split_paths(&v).filter(|p| !p.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if listed.is_empty() {
        vec![dirs::home_dir().unwrap_or_else(|| PathBuf::from("/root")).join(".kube/config")]
    } else {
        listed
    }
}

/// Where new entries go: as kubectl, the first file that exists, else the last one named.
pub fn target() -> PathBuf {
    let files = files();
    let last = files.last().expect("files() names at least one").clone();
    files.into_iter().find(|f| f.exists()).unwrap_or(last)
}

/// Writes the profile's cluster, user and context, and makes the context the current one.
pub fn merge(path: &Path, entry: &Entry<'_>) -> Result<(), KubeconfigError> {
    change(path, |config| {
        let context = entry.profile;
        let encode = |pem: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
        let cluster = map([("certificate-authority-data", encode(entry.ca)), ("server", entry.server.into())]);
        let user =
            map([("client-certificate-data", encode(entry.certificate)), ("client-key-data", encode(entry.key))]);
        let link = map([("cluster", context.into()), ("user", context.into())]);
        put(config, "clusters", "cluster", context, cluster)?;
        put(config, "users", "user", context, user)?;
        put(config, "contexts", "context", context, link)?;
        config.insert("current-context".into(), context.into());
        Ok(true)
    })
}

/// Takes the profile's entries out of every file of `$KUBECONFIG`.
pub fn remove(profile: &str) -> Result<(), (PathBuf, KubeconfigError)> {
    for path in files().into_iter().filter(|f| f.exists()) {
        let result = change(&path, |config| {
            let mut changed = false;
            for list in ["clusters", "users", "contexts"] {
                let Some(Value::Sequence(entries)) = config.get_mut(list) else { continue };
                let before = entries.len();
                entries.retain(|e| e["name"] != profile);
                changed |= entries.len() != before;
            }
            if config.get("current-context").is_some_and(|c| c == profile) {
                config.insert("current-context".into(), "".into());
                changed = true;
            }
            Ok(changed)
        });
        result.map_err(|e| (path, e))?;
    }
    Ok(())
}

/// The server the profile's context points to, to see whether the kubeconfig is in order.
pub fn server(profile: &str) -> Option<String> {
    files().iter().find_map(|path| {
        let config: Value = serde_yaml::from_str(&fs::read_to_string(path).ok()?).ok()?;
        let entry = config["clusters"].as_sequence()?.iter().find(|e| e["name"] == profile)?.clone();
        Some(entry["cluster"]["server"].as_str()?.to_string())
    })
}

fn map<const N: usize>(fields: [(&str, String); N]) -> Value {
    Value::Mapping(fields.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
}

fn put(config: &mut Mapping, list: &'static str, field: &str, name: &str, body: Value) -> Result<(), KubeconfigError> {
    let slot = config.entry(list.into()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Sequence(Vec::new());
    }
    let Value::Sequence(entries) = slot else { return Err(KubeconfigError::NotAList(list)) };
    let mut entry = Mapping::new();
    entry.insert(field.into(), body);
    entry.insert("name".into(), name.into());
    match entries.iter_mut().find(|e| e["name"] == name) {
        Some(old) => *old = Value::Mapping(entry),
        None => entries.push(Value::Mapping(entry)),
    }
    Ok(())
}

/// Read, change, write to a new file, rename: under kubectl's own lock file, so that both can run at once.
fn change(
    path: &Path,
    edit: impl FnOnce(&mut Mapping) -> Result<bool, KubeconfigError>,
) -> Result<(), KubeconfigError> {
    let io = |what| move |source| KubeconfigError::Io { what, source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(io("make its folder"))?;
    }
    let _lock = Lock::take(path)?;
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(io("read it")(e)),
    };
    let mut config = match serde_yaml::from_str(&text)? {
        Value::Mapping(config) => config,
        Value::Null => {
            [("apiVersion", "v1"), ("kind", "Config")].map(|(k, v)| (k.into(), v.into())).into_iter().collect()
        }
        _ => return Err(KubeconfigError::NotAMapping),
    };
    if !edit(&mut config)? {
        return Ok(());
    }
    // A symlinked kubeconfig stays a symlink: its target is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let new = target.with_file_name(format!(".minik-kubeconfig-{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut f| {
            f.write_all(serde_yaml::to_string(&config).unwrap_or_default().as_bytes()).and_then(|()| f.sync_all())
        })
        .and_then(|()| fs::rename(&new, &target));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map_err(io("write it"))
}

/// kubectl's convention: `config.lock` beside the file, made with O_EXCL.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, KubeconfigError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        // kubectl gives up at once; several `minik start`s may well finish in the same moment, so wait a little.
        const TRIES: u32 = 200;
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(25);
        for _ in 0..TRIES {
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let age = fs::metadata(&lock).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
                    if age.is_some_and(|a| a.as_secs() > LOCK_STALE_SECONDS) {
                        let _ = fs::remove_file(&lock);
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(source) => return Err(KubeconfigError::Io { what: "lock it", source }),
            }
        }
        Err(KubeconfigError::Locked(lock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(profile: &str) -> Entry<'_> {
        Entry { profile, server: "https://127.0.0.1:1", ca: "CA", certificate: "CERT", key: "KEY" }
    }

    #[test]
    fn other_contexts_survive_a_merge_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "apiVersion: v1\nkind: Config\nclusters:\n- name: work\n  cluster:\n    server: https://x\n    extra: kept\n").unwrap();
        merge(&path, &entry("dev")).unwrap();
        merge(&path, &entry("dev")).unwrap();
        let config: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(config["clusters"].as_sequence().unwrap().len(), 2);
        assert_eq!(config["clusters"][0]["cluster"]["extra"], "kept");
        assert_eq!(config["current-context"], "dev");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn concurrent_merges_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let names: Vec<String> = (0..8).map(|i| format!("c{i}")).collect();
        std::thread::scope(|s| {
            for name in &names {
                s.spawn(|| merge(&path, &entry(name)).unwrap());
            }
        });
        let config: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(config["contexts"].as_sequence().unwrap().len(), 8);
    }

    #[test]
    fn a_broken_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "clusters: {not: a list}\n").unwrap();
        assert!(matches!(merge(&path, &entry("dev")), Err(KubeconfigError::NotAList("clusters"))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "clusters: {not: a list}\n");
    }
}

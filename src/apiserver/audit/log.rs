//! The file that audit events go to.
//!
//! Owns: one JSON object a line, and turning to a new file when one is full.
//! Called by: trails.
//! Never: loses an event without a word in the server's own log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

/// Upstream's flags `--audit-log-maxsize`, `--audit-log-maxbackup` and `--audit-log-maxage`; zero is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    pub size_max_mb: u64,
    pub backups_max: usize,
    pub age_max_days: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { size_max_mb: 100, backups_max: 0, age_max_days: 0 }
    }
}

pub struct Log {
    path: PathBuf,
    rotation: Rotation,
    open: Mutex<Open>,
}

struct Open {
    file: File,
    size: u64,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }
}

impl Log {
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        Ok(Self { path: path.into(), rotation, open: Mutex::new(Open::at(path)?) })
    }

    pub fn write(&self, event: &Value) {
        let mut line = event.to_string();
        line.push('\n');
        let mut open = self.open.lock();
        if let Err(error) = self.append(&mut open, &line) {
            tracing::error!(path = %self.path.display(), %error, event = line, "an audit event could not be written");
        }
    }

    fn append(&self, open: &mut Open, line: &str) -> io::Result<()> {
        let limit = self.rotation.size_max_mb << 20;
        if limit > 0 && open.size > 0 && open.size + line.len() as u64 > limit {
            self.turn(open)?;
        }
        open.file.write_all(line.as_bytes())?;
        open.size += line.len() as u64;
        Ok(())
    }

    /// Puts the full file aside under its time, as lumberjack names it, and drops what is too old or too many.
    fn turn(&self, open: &mut Open) -> io::Result<()> {
        let stem = self.path.file_stem().and_then(|s| s.to_str()).unwrap_or("audit");
        let extension = self.path.extension().and_then(|e| e.to_str()).map_or(String::new(), |e| format!(".{e}"));
        let time = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        let aside = self.path.with_file_name(format!("{stem}-{time}{extension}"));
        fs::rename(&self.path, aside)?;
        *open = Open::at(&self.path)?;
        self.tidy(&format!("{stem}-"), &extension);
        Ok(())
    }

    fn tidy(&self, prefix: &str, extension: &str) {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_backup = |path: &PathBuf| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            name.starts_with(prefix) && name.ends_with(extension)
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut backups: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_backup).collect();
        // Their names begin with their time, so the newest come first.
        backups.sort_unstable_by(|a, b| b.cmp(a));
        let age_max = Duration::from_secs(self.rotation.age_max_days * 24 * 3600);
        let is_old = |path: &Path| {
            let age = fs::metadata(path)
                .and_then(|m| m.modified())
                .ok()
                .and_then(|t| SystemTime::now().duration_since(t).ok());
            self.rotation.age_max_days > 0 && age.is_some_and(|age| age > age_max)
        };
        for (index, backup) in backups.iter().enumerate() {
            let too_many = self.rotation.backups_max > 0 && index >= self.rotation.backups_max;
            if (too_many || is_old(backup))
                && let Err(error) = fs::remove_file(backup)
            {
                tracing::warn!(path = %backup.display(), %error, "an old audit log could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_old_ones_go() {
        let folder = std::env::temp_dir().join(format!("minik-audit-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).expect("test");
        let rotation = Rotation { size_max_mb: 1, backups_max: 2, age_max_days: 0 };
        let log = Log::open(&folder.join("audit.log"), rotation).expect("test");
        for _ in 0..5 {
            log.write(&json!({"text": "x".repeat(700 << 10)}));
            // Two files of one millisecond would have one name.
            std::thread::sleep(Duration::from_millis(2));
        }
        let files = fs::read_dir(&folder).expect("test").count();
        fs::remove_dir_all(&folder).expect("test");
        assert_eq!(files, 3);
    }
}

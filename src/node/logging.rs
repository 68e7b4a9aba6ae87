//! Where a component's log lines go: its own file (so `kubectl logs -n kube-system kube-scheduler-…`
//! works) and the container's output (so `minik logs` and `docker logs` work).
//!
//! Owns: the tracing subscriber of a node's processes, which file a line belongs to, and the files' size limit.
//! Called by: the wiring of each process, once, at its start.
//! Never: blocks a component for long: a line is one `write`, and a full disk loses lines, not requests.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::COMPONENT_LOGS;

/// One file a component, plus one older generation of the same size.
const FILE_BYTES_MAX: u64 = 5 << 20;

/// Crate of a log line -> the component a user knows. The first is the process's own default.
pub type Components = &'static [(&'static str, &'static str)];

pub const CONTROL_PLANE: Components = &[
    ("minik_apiserver", "kube-apiserver"),
    ("minik_store", "store"),
    ("minik_scheduler", "kube-scheduler"),
    ("minik_controllers", "kube-controller-manager"),
];
pub const KUBELET: Components =
    &[("minik_kubelet", "kubelet"), ("minik_proxy", "kube-proxy"), ("minik_dns", "dns"), ("minik_cri", "cri")];

pub fn component_log(component: &str) -> PathBuf {
    Path::new(COMPONENT_LOGS).join(format!("{component}.log"))
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("MINIK_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

/// For a component on its own: standard error is all there is.
pub fn start_console() {
    let console = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(io::stderr).with_filter(filter());
    let _ = tracing_subscriber::registry().with(console).try_init();
}

/// Installs the subscriber. `MINIK_LOG` is a filter such as `debug` or `minik_kubelet=debug`; a release has nothing below
/// `debug`.
pub fn start(components: Components) {
    let console = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(io::stderr).with_filter(filter());
    let files = Files { all: Arc::new(components.iter().map(|(krate, name)| (*krate, Rotating::new(name))).collect()) };
    let file = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(files).with_filter(filter());
    // A second subscriber in one process happens in tests only, where the first one serves as well.
    let _ = tracing_subscriber::registry().with(console).with(file).try_init();
}

#[derive(Clone)]
struct Files {
    all: Arc<Vec<(&'static str, Rotating)>>,
}

impl<'a> MakeWriter<'a> for Files {
    type Writer = &'a Rotating;

    fn make_writer(&'a self) -> Self::Writer {
        &self.all[0].1
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        let krate = meta.target().split("::").next().unwrap_or("");
        self.all.iter().find(|(name, _)| *name == krate).map_or(&self.all[0].1, |(_, file)| file)
    }
}

/// A file that is renamed to `.1` when it is full.
struct Rotating {
    path: PathBuf,
    open: Mutex<Option<(File, u64)>>,
}

impl Rotating {
    fn new(component: &str) -> Self {
        Self { path: component_log(component), open: Mutex::new(None) }
    }
}

impl Write for &Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if open.as_ref().is_some_and(|(_, size)| *size > FILE_BYTES_MAX) {
            *open = None;
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        if open.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            let size = file.metadata()?.len();
            *open = Some((file, size));
        }
        let (file, size) = open.as_mut().expect("opened above");
        file.write_all(line)?;
        *size += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

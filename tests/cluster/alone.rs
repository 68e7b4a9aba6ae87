//! An API server as a process of its own, without Docker, that a test may kill.
//!
//! Owns: the process, its folder and the port it comes back on.
//! Called by: tests of what clients do while their API server is away.
//! Never: outlives its test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::harness::minik;

pub struct ApiServer {
    folder: tempfile::TempDir,
    /// 0 until the first start has found a free one.
    port: u16,
    process: Option<Child>,
}

impl ApiServer {
    pub fn start() -> Result<Self> {
        let mut server = Self { folder: tempfile::tempdir()?, port: 0, process: None };
        server.begin()?;
        Ok(server)
    }

    /// Returns when it answers, with what it had acknowledged before it was killed.
    pub fn begin(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "it runs already");
        let mut command = Command::new(minik());
        command.args(["apiserver", "--secure-port", &self.port.to_string(), "--data-dir"]).arg(self.folder.path());
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let out = child.stdout.take().context("piped above")?;
        self.process = Some(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|p| p.parse().ok());
        self.port = port.with_context(|| format!("the API server said {line:?}; its log:\n{}", self.log()))?;
        Ok(())
    }

    /// As `kill -9` does it: nothing is flushed, nobody is told.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(Path::new(self.folder.path()).join("log")).unwrap_or_default()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

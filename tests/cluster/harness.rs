//! A cluster for tests: started by the real CLI, driven by the real kubectl, deleted when it is dropped.
//!
//! Owns: the names of test clusters, their kubeconfig, and images assembled from what the machine has.
//! Called by: every cluster test.
//! Never: touches the user's kubeconfig or another cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long anything a test waits for may take; generous, since CI machines are shared.
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub profile: String,
    dir: tempfile::TempDir,
}

/// The binary built beside this test.
pub fn minik() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/TRIPLE/PROFILE/deps");
    folder.join("minik")
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Tries again until it holds or the limit passes; returns what was wrong last.
pub fn eventually(what: &str, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match check() {
            Ok(()) => return Ok(()),
            Err(e) if begun.elapsed() > LIMIT => return Err(e.context(format!("{what} not within {LIMIT:?}"))),
            // A pause between looks from outside, not a guess how long something takes.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

impl Cluster {
    /// A cluster of its own, named after the test and this process, so that runs never meet.
    pub fn new(test: &str) -> Result<Self> {
        let profile = format!("t{}-{test}", std::process::id());
        Ok(Self { profile, dir: tempfile::tempdir()? })
    }

    pub fn start(test: &str, nodes: u32) -> Result<Self> {
        let cluster = Self::new(test)?;
        cluster.minik(&["start", "--nodes", &nodes.to_string()])?;
        cluster.load_busybox()?;
        Ok(cluster)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn node(&self, name: &str) -> String {
        format!("{}-{name}", self.profile)
    }

    fn environment(&self, command: &mut Command) {
        command.env("KUBECONFIG", self.kubeconfig()).env("MINIK_PROFILE", &self.profile).env("NO_COLOR", "1");
    }

    pub fn minik_output(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(minik());
        self.environment(&mut command);
        command.args(args).stdin(Stdio::null()).output().context("minik is not built")
    }

    pub fn minik(&self, args: &[&str]) -> Result<String> {
        let output = self.minik_output(args)?;
        ensure!(output.status.success(), "minik {}: {}", args.join(" "), text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A client's command line that meets this cluster and none of the user's settings.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        self.environment(&mut command);
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.dir.path().join("helm"));
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        self.command("kubectl", args)
    }

    pub fn kubectl_output(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_command(args).output().context("kubectl is not on PATH; scripts/prepare tests brings it")
    }

    /// Standard output of a kubectl that must succeed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl_output(args)?;
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a kubectl that must fail says.
    pub fn kubectl_fails(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl_output(args)?;
        ensure!(!output.status.success(), "kubectl {} was to fail: {}", args.join(" "), text(&output));
        Ok(text(&output))
    }

    /// `kubectl ... -f -` with a manifest on standard input.
    pub fn kubectl_in(&self, args: &[&str], manifest: &str) -> Result<String> {
        let mut command = self.kubectl_command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        std::io::Write::write_all(child.stdin.as_mut().expect("piped above"), manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_in(&["apply", "-f", "-"], manifest)
    }

    /// A namespace of the test's own, with its default service account there.
    pub fn namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        Ok(())
    }

    pub fn docker(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("docker").args(args).output()?;
        ensure!(output.status.success(), "docker {}: {}", args.join(" "), text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    }

    fn load_busybox(&self) -> Result<()> {
        let path = self.dir.path().join("busybox.tar");
        std::fs::write(&path, busybox_image()?)?;
        self.minik(&["image", "load", path.to_str().context("temporary paths are UTF-8")?])?;
        Ok(())
    }

    /// What a person would look at first when a test has failed.
    pub fn print_state(&self) {
        for args in [
            &["get", "nodes,pods,services,endpointslices", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"][..],
        ] {
            eprintln!(
                "--- kubectl {}\n{}",
                args.join(" "),
                self.kubectl_output(args).map(|o| text(&o)).unwrap_or_default()
            );
        }
        let args = ["logs", "--tail", "60"];
        eprintln!("--- minik logs\n{}", self.minik_output(&args).map(|o| text(&o)).unwrap_or_default());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::env::var_os("MINIK_TEST_KEEP").is_some() {
            eprintln!("kept cluster {} with {}", self.profile, self.kubeconfig().display());
            return;
        }
        if let Err(e) = self.minik(&["delete"]) {
            eprintln!("could not delete test cluster {}: {e:#}", self.profile);
        }
    }
}

/// `test/busybox:1` as `docker save` writes it: one layer with a static busybox under the names of its applets.
fn busybox_image() -> Result<Vec<u8>> {
    const APPLETS: [&str; 24] = [
        "sh", "ls", "cat", "wget", "nslookup", "sleep", "echo", "env", "id", "hostname", "touch", "test", "stty",
        "true", "false", "tar", "nc", "ps", "kill", "date", "seq", "stat", "mkdir", "httpd",
    ];
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|p| std::fs::read(p).ok());
    let Some(busybox) = busybox else { bail!("there is no busybox; scripts/prepare tests installs it") };
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["bin/", "tmp/", "etc/", "root/", "usr/", "var/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o777);
        header.set_size(0);
        layer.append_data(&mut header, folder, std::io::empty())?;
    }
    file(&mut layer, "bin/busybox", 0o755, &busybox)?;
    file(&mut layer, "bin/get", 0o755, &std::fs::read(std::env::current_exe()?)?)?;
    file(&mut layer, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")?;
    file(&mut layer, "etc/group", 0o644, b"root:x:0:\nweb:x:1000:\n")?;
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let layer = layer.into_inner()?;
    let diff_id = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&layer));
    let config = serde_json::json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    });
    let config = config.to_string().into_bytes();
    let name = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&config));
    let manifest = serde_json::json!([
        {"Config": format!("{name}.json"), "RepoTags": ["test/busybox:1"], "Layers": [format!("{diff_id}/layer.tar")]}
    ]);
    let mut image = tar::Builder::new(Vec::new());
    file(&mut image, &format!("{name}.json"), 0o644, &config)?;
    file(&mut image, &format!("{diff_id}/layer.tar"), 0o644, &layer)?;
    file(&mut image, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    Ok(image.into_inner()?)
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

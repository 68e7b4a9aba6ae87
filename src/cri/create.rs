//! Creating a container: everything that can be known before its process is made.
//!
//! Owns: the root filesystem, the specification and the shim's configuration of a new container.
//! Called by: the CRI RuntimeService.
//! Never: starts anything.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_cri::v1::{self, NamespaceMode};
use minik_shim::{CONFIG_FILE, CgroupVersion, RunConfig};

use crate::capability;
use crate::config::write_atomically;
use crate::container::{self, clean_up};
use crate::device;
use crate::error::{Error, io_error};
use crate::images::{Image, Reference};
use crate::mounts::{self, PodFiles};
use crate::namespaces::{IPC, NET, PID, UTS};
use crate::record::{self, ContainerRecord, SandboxRecord, State};
use crate::rootfs;
use crate::runtime::{Container, Runtime, new_id};
use crate::sandbox::{cgroup_parent, is_node};
use crate::seccomp;
use crate::spec;
use crate::update;
use crate::user::{self, Accounts};

pub(crate) async fn create(
    runtime: &Runtime,
    sandbox: &str,
    config: v1::ContainerConfig,
    pod: Option<v1::PodSandboxConfig>,
) -> Result<String, Error> {
    let sandbox = runtime.sandbox(sandbox)?.record.lock().clone();
    if !sandbox.ready {
        return Err(Error::Precondition(format!("sandbox container {:?} is not running", sandbox.id)));
    }
    let pod = pod.unwrap_or_else(|| sandbox.config.clone());
    let id = new_id();
    let (owner, own_id) = (runtime.clone(), id.clone());
    let made = tokio::task::spawn_blocking(move || {
        let work = Work { runtime: &owner, id: &own_id, dir: owner.0.config.container(&own_id), sandbox: &sandbox };
        let record = work.make(config, &pod).inspect_err(|_| clean_up(&owner, &work.dir))?;
        record::save(&work.dir, &record).inspect_err(|_| clean_up(&owner, &work.dir))?;
        Ok::<_, Error>(record)
    });
    let record = made.await??;
    let sandbox = record.sandbox.clone();
    runtime.insert_container(Container::new(record));
    runtime.announce(&sandbox, &id, v1::ContainerEventType::ContainerCreatedEvent);
    Ok(id)
}

struct Work<'a> {
    runtime: &'a Runtime,
    id: &'a str,
    dir: PathBuf,
    sandbox: &'a SandboxRecord,
}

impl Work<'_> {
    fn make(&self, mut config: v1::ContainerConfig, pod: &v1::PodSandboxConfig) -> Result<ContainerRecord, Error> {
        let owner = &self.runtime.0;
        let wanted = config.image.as_ref().map(|i| i.image.clone()).unwrap_or_default();
        let image = owner.images.resolve(&wanted)?.ok_or_else(|| Error::NoImage(wanted.clone()))?;
        if spec::args(&config, &image.config).is_empty() {
            return Err(Error::Invalid("failed to generate container spec: no command specified".into()));
        }
        let linux = config.linux.clone().unwrap_or_default();
        let security = linux.security_context.unwrap_or_default();
        let resources = linux.resources.unwrap_or_default();
        fs::create_dir_all(&self.dir).map_err(io_error("could not make the container's folder"))?;
        let root = owner.config.rootfs(self.id);
        owner.images.hold(&image, self.id)?;
        rootfs::mount_overlay(&image.layers, &owner.config.layer(self.id), &root)?;
        self.mount_images(&mut config)?;
        let accounts =
            Accounts::parse(&rootfs::read_inside(&root, "etc/passwd"), &rootfs::read_inside(&root, "etc/group"));
        let user = user::resolve(&security, &image.config.user, &accounts)?;
        let cwd = spec::working_dir(&config, &image.config);
        rootfs::make_dir_inside(&root, &cwd)
            .map_err(io_error(format!("could not make the working directory {cwd:?}")))?;
        let (mounts, root_propagation) =
            mounts::mounts(&config.mounts, &security, &self.pod_files(&security).borrowed(), owner.cgroups)?;
        let bounding = capability::Set::bounding(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let capabilities = capability::resolve(&security, bounding).0.names();
        let devices = if security.privileged { device::all() } else { device::asked(&config.devices)? };
        let hostname = fs::read_to_string(self.pod_path("hostname")).unwrap_or_default();
        let cgroup = self.cgroup();
        let oci = spec::spec(&spec::Input {
            config: &config,
            security: &security,
            resources: &resources,
            image: &image.config,
            user: &user,
            home: accounts.home(user.uid),
            hostname: hostname.trim(),
            rootfs: &root.to_string_lossy(),
            cgroup: &cgroup,
            namespaces: self.namespaces(&security)?,
            mounts,
            root_propagation,
            devices,
            bounding,
            seccomp: seccomp::profile(security.seccomp.as_ref(), &capabilities)?,
            hugepage_sizes: hugepage_sizes(owner.cgroups),
            limits_swap: limits_swap(owner.cgroups),
        });
        let log_path = log_path(pod, &config);
        container::log_folder(&log_path)?;
        let shim = RunConfig {
            id: self.id.to_owned(),
            libcontainer_root: owner.config.libcontainer(),
            cgroup: cgroup.clone(),
            log_path: Some(PathBuf::from(&log_path)).filter(|p| !p.as_os_str().is_empty()),
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            uid: user.uid,
            gid: user.gid,
        };
        self.write("config.json", &oci)?;
        self.write(CONFIG_FILE, &shim)?;
        let (image_ref, name) = names(&image, &wanted, &config);
        if let Some(spec) = config.image.as_mut() {
            spec.image = name;
        }
        Ok(ContainerRecord {
            id: self.id.to_owned(),
            sandbox: self.sandbox.id.clone(),
            config,
            image_id: image.id,
            image_ref,
            stop_signal: stop_signal(&image.config.stop_signal),
            log_path,
            cgroup,
            user,
            created_at: record::now(),
            state: State::Created,
        })
    }

    fn write(&self, name: &str, value: &impl serde::Serialize) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).expect("specifications are plain data");
        write_atomically(&self.dir.join(name), &bytes).map_err(io_error(format!("could not write {name}")))
    }

    fn pod_path(&self, name: &str) -> String {
        self.runtime.0.config.sandbox(&self.sandbox.id).join(name).to_string_lossy().into_owned()
    }

    fn pod_files(&self, security: &v1::LinuxContainerSecurityContext) -> OwnedPodFiles {
        let ipc = security.namespace_options.as_ref().map_or(0, |o| o.ipc);
        OwnedPodFiles {
            resolv_conf: self.pod_path("resolv.conf"),
            hostname: self.pod_path("hostname"),
            hosts: self.pod_path("hosts"),
            shm: if is_node(ipc) { "/dev/shm".into() } else { self.pod_path("shm") },
        }
    }

    fn cgroup(&self) -> String {
        let named = cgroup_parent(&self.sandbox.config);
        let parent = if named.is_empty() { &self.runtime.0.config.cgroup_root } else { named };
        format!("/{}/{}", parent.trim_matches('/'), self.id)
    }

    /// Volumes that are images become read-only mounts of their own.
    fn mount_images(&self, config: &mut v1::ContainerConfig) -> Result<(), Error> {
        for (i, mount) in config.mounts.iter_mut().enumerate() {
            let Some(spec) = mount.image.clone().filter(|s| !s.image.is_empty()) else { continue };
            let found = self.runtime.0.images.resolve(&spec.image)?;
            let image = found.ok_or_else(|| Error::NoImage(spec.image.clone()))?;
            self.runtime.0.images.hold(&image, self.id)?;
            let target = self.dir.join("images").join(i.to_string());
            rootfs::mount_image(&image.layers, &self.dir.join("empty"), &target)?;
            mount.host_path = target.to_string_lossy().into_owned();
            mount.readonly = true;
        }
        Ok(())
    }

    fn namespaces(
        &self,
        security: &v1::LinuxContainerSecurityContext,
    ) -> Result<Vec<(&'static str, Option<String>)>, Error> {
        let options = security.namespace_options.clone().unwrap_or_default();
        let held = |name: &str| Some(self.pod_path(&format!("ns/{name}")));
        let mut all = vec![("mount", None)];
        if !is_node(options.network) {
            all.push(("network", held(NET)));
            all.push(("uts", held(UTS)));
        }
        if !is_node(options.ipc) {
            all.push(("ipc", held(IPC)));
        }
        match NamespaceMode::try_from(options.pid) {
            Ok(NamespaceMode::Pod) => all.push(("pid", held(PID))),
            Ok(NamespaceMode::Target) => {
                let target = self.runtime.container(&options.target_id)?;
                all.push(("pid", Some(format!("/proc/{}/ns/pid", container::pid_of(&target)?))));
            }
            Ok(NamespaceMode::Node) => {}
            _ => all.push(("pid", None)),
        }
        if self.runtime.0.cgroups == CgroupVersion::V2 && !security.privileged {
            all.push(("cgroup", None));
        }
        Ok(all)
    }
}

/// New limits for a container that was not started yet.
pub(crate) fn rewrite_resources(
    runtime: &Runtime,
    record: &ContainerRecord,
    wanted: &v1::LinuxContainerResources,
) -> Result<(), Error> {
    let path = runtime.0.config.container(&record.id).join("config.json");
    let what = || "could not change the container's specification";
    let bytes = fs::read(&path).map_err(io_error(what()))?;
    let mut oci: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| io_error(what())(e.into()))?;
    let old = record.config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default();
    let version = runtime.0.cgroups;
    let merged = update::merge(&old, wanted);
    let mut resources = spec::resources(&merged, &hugepage_sizes(version), limits_swap(version));
    resources["devices"] = oci["linux"]["resources"]["devices"].take();
    oci["linux"]["resources"] = resources;
    let bytes = serde_json::to_vec(&oci).expect("specifications are plain data");
    write_atomically(&path, &bytes).map_err(io_error(what()))
}

struct OwnedPodFiles {
    resolv_conf: String,
    hostname: String,
    hosts: String,
    shm: String,
}

impl OwnedPodFiles {
    fn borrowed(&self) -> PodFiles<'_> {
        PodFiles { resolv_conf: &self.resolv_conf, hostname: &self.hostname, hosts: &self.hosts, shm: &self.shm }
    }
}

/// What a pod's status shows as `imageID` and as `image`.
fn names(image: &Image, wanted: &str, config: &v1::ContainerConfig) -> (String, String) {
    let said = config.image.as_ref().map(|i| i.user_specified_image.clone()).filter(|s| !s.is_empty());
    let said = said.unwrap_or_else(|| wanted.to_owned());
    let normal = Reference::parse(&said).map(|r| r.to_string()).unwrap_or_default();
    let known = [&image.tags[..], &image.digests[..]].concat();
    let name = if known.contains(&normal) { normal } else { known.into_iter().next().unwrap_or(said) };
    let repository = name.split('@').next().map(|n| n.rsplit_once(':').map_or(n, |(repository, _)| repository));
    let same = |digest: &&String| repository.is_some_and(|r| digest.starts_with(&format!("{r}@")));
    let digest = image.digests.iter().find(same).or(image.digests.first());
    (digest.cloned().unwrap_or_else(|| image.id.clone()), name)
}

fn log_path(pod: &v1::PodSandboxConfig, config: &v1::ContainerConfig) -> String {
    if pod.log_directory.is_empty() || config.log_path.is_empty() {
        return String::new();
    }
    Path::new(&pod.log_directory).join(&config.log_path).to_string_lossy().into_owned()
}

/// `SIGTERM`, `TERM` or `15`.
fn stop_signal(text: &str) -> i32 {
    let upper = text.to_ascii_uppercase();
    let named = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "WINCH" => libc::SIGWINCH,
        "RTMIN+3" => 37,
        "TERM" | "" => libc::SIGTERM,
        number => number.parse().unwrap_or(libc::SIGTERM),
    };
    if (1..=64).contains(&named) { named } else { libc::SIGTERM }
}

fn hugepage_sizes(version: CgroupVersion) -> Vec<String> {
    let folder = minik_shim::path_of(version, "hugetlb", "");
    let names =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let size = |name: String| Some(name.strip_prefix("hugetlb.")?.split('.').next()?.to_owned());
    let mut sizes: Vec<String> = names.filter_map(size).collect();
    sizes.sort();
    sizes.dedup();
    sizes
}

fn limits_swap(version: CgroupVersion) -> bool {
    let file = match version {
        CgroupVersion::V1 => "memory.memsw.limit_in_bytes",
        CgroupVersion::V2 => "memory.swap.max",
    };
    let probe = match version {
        CgroupVersion::V1 => minik_shim::path_of(version, "memory", ""),
        // The root has no limits of its own; the node's own leaf does.
        CgroupVersion::V2 => minik_shim::path_of(version, "memory", "init"),
    };
    probe.join(file).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_is_a_name_or_a_number() {
        assert_eq!(["SIGQUIT", "quit", "3", "", "bogus", "99"].map(stop_signal), [3, 3, 3, 15, 15, 15]);
    }

    #[test]
    fn the_status_shows_the_name_the_user_wrote_and_the_digest_of_its_repository() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let image = Image {
            id: "sha256:1".into(),
            tags: vec!["docker.io/library/a:1".into(), "docker.io/library/b:2".into()],
            digests: vec![format!("docker.io/library/a@{digest}"), format!("docker.io/library/b@{digest}")],
            size: 0,
            config: Default::default(),
            layers: Vec::new(),
        };
        let said = |text: &str| v1::ContainerConfig {
            image: Some(v1::ImageSpec { user_specified_image: text.into(), ..Default::default() }),
            ..Default::default()
        };
        let (id, name) = names(&image, "sha256:1", &said("b:2"));
        assert_eq!((id.as_str(), name.as_str()), (image.digests[1].as_str(), "docker.io/library/b:2"));
        assert_eq!(names(&image, "sha256:1", &said("")).1, "docker.io/library/a:1");
    }
}

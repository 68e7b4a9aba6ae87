//! The life of a pod sandbox: namespaces, files and an address that the pod's containers share.
//!
//! Owns: the steps of starting, stopping and removing one, each safe to repeat.
//! Called by: the CRI RuntimeService.
//! Never: keeps a process, unless the pod shares its PID namespace.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use k8s_cri::v1::{self, NamespaceMode};
use minik_network::{HostPort, Protocol, netns};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

use crate::container;
use crate::error::{Error, io_error};
use crate::namespaces::{self, NET, PID, Wanted};
use crate::record::{self, SandboxRecord};
use crate::rootfs::unmount_all;
use crate::runtime::{Runtime, Sandbox, new_id};
use crate::shim_process;

/// Docker's and containerd's size of a pod's `/dev/shm`.
const SHM_OPTIONS: &std::ffi::CStr = c"mode=1777,size=67108864";

pub(crate) fn options_of(config: &v1::PodSandboxConfig) -> v1::NamespaceOption {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    security.and_then(|s| s.namespace_options.clone()).unwrap_or_default()
}

pub(crate) fn is_node(mode: i32) -> bool {
    mode == NamespaceMode::Node as i32
}

pub(crate) async fn run(runtime: &Runtime, config: v1::PodSandboxConfig, handler: String) -> Result<String, Error> {
    // Other handlers are other runtimes; this one has the default's name only.
    if !["", "runc", "minik"].contains(&handler.as_str()) {
        return Err(Error::Invalid(format!("no runtime for {handler:?} is configured")));
    }
    let id = new_id();
    let dir = runtime.0.config.sandbox(&id);
    match make(runtime, &id, &dir, config, handler).await {
        Ok(record) => {
            record::save(&dir, &record)?;
            runtime.insert_sandbox(record);
            runtime.announce(&id, &id, v1::ContainerEventType::ContainerCreatedEvent);
            runtime.announce(&id, &id, v1::ContainerEventType::ContainerStartedEvent);
            Ok(id)
        }
        Err(error) => {
            clean_up(runtime, &dir).await;
            Err(error)
        }
    }
}

async fn make(
    runtime: &Runtime,
    id: &str,
    dir: &Path,
    config: v1::PodSandboxConfig,
    handler: String,
) -> Result<SandboxRecord, Error> {
    let options = options_of(&config);
    if options.userns_options.as_ref().is_some_and(|u| u.mode == NamespaceMode::Pod as i32) {
        return Err(Error::Invalid("user namespaces are not supported by this runtime".into()));
    }
    fs::create_dir_all(dir.join("ns")).map_err(io_error("could not make the sandbox's folder"))?;
    let own_network = !is_node(options.network);
    let sysctls = config.linux.as_ref().map(|l| l.sysctls.clone()).unwrap_or_default();
    let (net, other): (Vec<_>, Vec<_>) = sysctls.into_iter().partition(|(name, _)| name.starts_with("net."));
    let wanted =
        Wanted { ipc: !is_node(options.ipc), hostname: own_network.then(|| config.hostname.clone()), sysctls: other };
    let (ns, files, for_files) = (dir.join("ns"), dir.to_owned(), config.clone());
    let resolv_conf = runtime.0.config.resolv_conf.clone();
    let shares_ipc = is_node(options.ipc);
    let local = tokio::task::spawn_blocking(move || -> Result<(), Error> {
        namespaces::make(&ns, wanted)?;
        write_files(&files, &for_files, &resolv_conf)?;
        if shares_ipc { Ok(()) } else { mount_shm(&files.join("shm")) }
    });
    let mut ip = None;
    if own_network {
        let path = dir.join("ns").join(NET);
        let failed = |source| Error::Namespace { sandbox: id.to_owned(), source };
        netns::create(&path).await.map_err(failed)?;
        netns::write_sysctls(&path, net).await.map_err(failed)?;
        let attached = runtime.0.network.attach(&path, id, &host_ports(&config)).await;
        ip = Some(attached.map_err(|source| Error::Network { sandbox: id.to_owned(), source })?.ip);
    }
    local.await??;
    let mut pause = None;
    if options.pid == NamespaceMode::Pod as i32 {
        let started = shim_process::start(&runtime.0.config.exe, "pause", dir).await?;
        pause = Some(started.pid);
        namespaces::hold(&Path::new("/proc").join(started.pid.to_string()).join("ns/pid"), &dir.join("ns").join(PID))?;
    }
    write_hosts(dir, &config, ip)?;
    let created_at = record::now();
    Ok(SandboxRecord { id: id.to_owned(), config, runtime_handler: handler, created_at, ready: true, ip, pause })
}

fn write_files(dir: &Path, config: &v1::PodSandboxConfig, node_resolv_conf: &Path) -> Result<(), Error> {
    let resolv_conf = match &config.dns_config {
        Some(dns) => resolv_conf(dns),
        // Default DNS: what the node itself uses.
        None => fs::read_to_string(node_resolv_conf).unwrap_or_default(),
    };
    let hostname = if config.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        config.hostname.clone()
    };
    fs::write(dir.join("resolv.conf"), resolv_conf).map_err(io_error("could not write resolv.conf"))?;
    fs::write(dir.join("hostname"), format!("{hostname}\n")).map_err(io_error("could not write the host name"))
}

/// The kubelet mounts a better one; this is for callers that do not.
fn write_hosts(dir: &Path, config: &v1::PodSandboxConfig, ip: Option<std::net::Ipv4Addr>) -> Result<(), Error> {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    if let Some(ip) = ip {
        text.push_str(&format!("{ip}\t{}\n", config.hostname));
    }
    fs::write(dir.join("hosts"), text).map_err(io_error("could not write hosts"))
}

/// The form glibc reads, in the order Kubernetes documents.
fn resolv_conf(dns: &v1::DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

fn mount_shm(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(io_error("could not make the folder of /dev/shm"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", path, "tmpfs", flags, SHM_OPTIONS).map_err(|e| io_error("could not mount /dev/shm")(e.into()))
}

fn host_ports(config: &v1::PodSandboxConfig) -> Vec<HostPort> {
    let port = |p: &v1::PortMapping| {
        let protocol = match v1::Protocol::try_from(p.protocol).ok()? {
            v1::Protocol::Tcp => Protocol::Tcp,
            v1::Protocol::Udp => Protocol::Udp,
            v1::Protocol::Sctp => Protocol::Sctp,
        };
        let host_port = u16::try_from(p.host_port).ok().filter(|p| *p > 0)?;
        let container_port = u16::try_from(p.container_port).ok().filter(|p| *p > 0)?;
        let host_ip = p.host_ip.parse().ok().filter(|ip: &std::net::Ipv4Addr| !ip.is_unspecified());
        Some(HostPort { protocol, host_ip, host_port, container_port })
    };
    config.port_mappings.iter().filter_map(port).collect()
}

/// Ends the pod's containers and gives its address back. Stopping twice is fine.
pub(crate) async fn stop(runtime: &Runtime, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let _work = sandbox.work.lock().await;
    let id = sandbox.record.lock().id.clone();
    let containers = runtime.containers_of(&id);
    futures::future::try_join_all(containers.iter().map(|c| container::stop(runtime, c, 0))).await?;
    let record = sandbox.record.lock().clone();
    if !record.ready {
        return Ok(());
    }
    let dir = runtime.0.config.sandbox(&id);
    take_down(runtime, &id, &dir, record.pause).await?;
    let stopped = SandboxRecord { ready: false, pause: None, ..record };
    record::save(&dir, &stopped)?;
    *sandbox.record.lock() = stopped;
    runtime.announce(&id, &id, v1::ContainerEventType::ContainerStoppedEvent);
    Ok(())
}

async fn take_down(runtime: &Runtime, id: &str, dir: &Path, pause: Option<i32>) -> Result<(), Error> {
    let failed = |source| Error::Network { sandbox: id.to_owned(), source };
    runtime.0.network.detach(id).await.map_err(failed)?;
    if let Some(pid) = pause.filter(|pid| is_in(*pid, &dir.join("ns").join(PID))).and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let failed = |source| Error::Namespace { sandbox: id.to_owned(), source };
    netns::delete(&dir.join("ns").join(NET)).await.map_err(failed)?;
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || {
        namespaces::release(&dir.join("ns"));
        unmount_all(&dir.join("shm"));
    })
    .await?;
    Ok(())
}

/// Whether the process is still the one whose namespace we hold: its number may be another's by now.
fn is_in(pid: i32, held: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| fs::metadata(path).map(|m| m.ino()).ok();
    let own = inode(&Path::new("/proc").join(pid.to_string()).join("ns/pid"));
    own.is_some() && own == inode(held)
}

pub(crate) async fn remove(runtime: &Runtime, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    stop(runtime, sandbox).await?;
    let id = sandbox.record.lock().id.clone();
    let containers = runtime.containers_of(&id);
    futures::future::try_join_all(containers.iter().map(|c| container::remove(runtime, c))).await?;
    let _work = sandbox.work.lock().await;
    let record = sandbox.record.lock().clone();
    remove_cgroup(runtime, &record);
    let dir = runtime.0.config.sandbox(&id);
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io_error("could not remove the sandbox")(e)),
        _ => {}
    }
    runtime.announce(&id, &id, v1::ContainerEventType::ContainerDeletedEvent);
    runtime.forget_sandbox(&id);
    Ok(())
}

/// The pod's cgroup, in which its containers had theirs; the pod's next sandbox has the same one.
fn remove_cgroup(runtime: &Runtime, record: &SandboxRecord) {
    let parent_of = |record: &SandboxRecord| cgroup_parent(&record.config).trim_end_matches('/').to_string();
    let parent = parent_of(record);
    let others = runtime.sandboxes();
    let mut others = others.iter().map(|s| s.record.lock()).filter(|s| s.id != record.id);
    if !parent.is_empty() && !others.any(|s| parent_of(&s) == parent) {
        minik_shim::remove_cgroup(&parent);
    }
}

/// Empty where the caller names none.
pub(crate) fn cgroup_parent(config: &v1::PodSandboxConfig) -> &str {
    config.linux.as_ref().map_or("", |linux| &linux.cgroup_parent)
}

/// Takes back what an attempt that failed, or a process that died in one, left.
pub(crate) async fn clean_up(runtime: &Runtime, dir: &Path) {
    let id = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if let Err(error) = take_down(runtime, &id, dir, None).await {
        tracing::warn!(sandbox = id, error = crate::error::chain(&error), "a half-made sandbox was not taken down");
    }
    let _ = fs::remove_dir_all(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_searches_servers_and_options() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let dns = v1::DnsConfig {
            servers: words("10.96.0.10"),
            searches: words("default.svc.cluster.local svc.cluster.local"),
            options: words("ndots:5"),
        };
        assert_eq!(
            resolv_conf(&dns),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn a_mapping_without_a_host_port_is_none() {
        let mapping = |host_port| v1::PortMapping { container_port: 80, host_port, ..Default::default() };
        let config = v1::PodSandboxConfig { port_mappings: vec![mapping(0), mapping(8080)], ..Default::default() };
        assert_eq!(host_ports(&config).iter().map(|p| p.host_port).collect::<Vec<_>>(), [8080]);
    }
}

//! A container's OCI runtime specification, from what CRI asks and what the image says.
//!
//! Owns: arguments, environment, identity, resources, devices and namespaces (mounts are `mounts`' part).
//! Called by: container creation. Pure: what must be read from the node is an argument.
//! Never: touches the file system.

use k8s_cri::v1;
use serde_json::{Value, json};

use crate::capability;
use crate::images::ImageConfig;
use crate::record::User;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A device of the node, as a container shall see it.
#[derive(Clone, Debug)]
pub(crate) struct DeviceNode {
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    pub major: u64,
    pub minor: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of `rwm`.
    pub permissions: String,
}

/// Everything a spec is made from.
pub(crate) struct Input<'a> {
    pub config: &'a v1::ContainerConfig,
    pub security: &'a v1::LinuxContainerSecurityContext,
    pub resources: &'a v1::LinuxContainerResources,
    pub image: &'a ImageConfig,
    pub user: &'a User,
    pub home: String,
    pub hostname: &'a str,
    pub rootfs: &'a str,
    pub cgroup: &'a str,
    /// Type and path; no path means a new one.
    pub namespaces: Vec<(&'static str, Option<String>)>,
    pub mounts: Vec<Value>,
    /// What the root's propagation must be for the mounts to work; empty for the default.
    pub root_propagation: &'static str,
    pub devices: Vec<DeviceNode>,
    pub bounding: capability::Set,
    pub seccomp: Option<Value>,
    /// Page sizes the node's kernel limits, such as `2MB`.
    pub hugepage_sizes: Vec<String>,
    /// Whether the kernel accounts swap.
    pub limits_swap: bool,
}

pub(crate) fn spec(input: &Input) -> Value {
    let privileged = input.security.privileged;
    let mut linux = json!({
        "cgroupsPath": input.cgroup,
        "namespaces": namespaces(&input.namespaces),
        "resources": with_devices(resources(input.resources, &input.hugepage_sizes, input.limits_swap), &input.devices, privileged),
        "devices": input.devices.iter().map(device).collect::<Vec<_>>(),
    });
    if !privileged {
        linux["maskedPaths"] = json!(input.security.masked_paths);
        linux["readonlyPaths"] = json!(input.security.readonly_paths);
        if let Some(profile) = &input.seccomp {
            linux["seccomp"] = profile.clone();
        }
    }
    if !input.root_propagation.is_empty() {
        linux["rootfsPropagation"] = json!(input.root_propagation);
    }
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": input.rootfs, "readonly": input.security.readonly_rootfs},
        "process": process(input),
        "mounts": input.mounts,
        "linux": linux,
    })
}

fn process(input: &Input) -> Value {
    let (permitted, ambient) = capability::resolve(input.security, input.bounding);
    let (permitted, ambient) = (permitted.names(), ambient.names());
    let mut groups = input.user.groups.clone();
    if !groups.contains(&input.user.gid) {
        // As containerd: the primary group counts among the additional ones, so that dropping it is no way around it.
        groups.insert(0, input.user.gid);
    }
    let mut process = json!({
        "terminal": input.config.tty,
        "user": {"uid": input.user.uid, "gid": input.user.gid, "additionalGids": groups},
        "args": args(input.config, input.image),
        "env": env(input),
        "cwd": working_dir(input.config, input.image),
        // A root process keeps its capabilities over exec; for others, only the ambient ones stay effective.
        "capabilities": {
            "bounding": permitted, "effective": permitted, "permitted": permitted,
            "inheritable": ambient, "ambient": ambient,
        },
    });
    // Said only when true: libcontainer takes "false" for a reason to install seccomp when it is too late for it.
    if input.security.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    if input.resources.oom_score_adj != 0 {
        process["oomScoreAdj"] = json!(input.resources.oom_score_adj);
    }
    process
}

/// A pod's `command` replaces the image's entrypoint and with it the image's arguments.
pub(crate) fn args(config: &v1::ContainerConfig, image: &ImageConfig) -> Vec<String> {
    if !config.command.is_empty() {
        return [config.command.clone(), config.args.clone()].concat();
    }
    let args = if config.args.is_empty() { &image.cmd } else { &config.args };
    [image.entrypoint.clone(), args.clone()].concat()
}

pub(crate) fn working_dir(config: &v1::ContainerConfig, image: &ImageConfig) -> String {
    let chosen = if config.working_dir.is_empty() { &image.working_dir } else { &config.working_dir };
    if chosen.is_empty() { "/".into() } else { chosen.clone() }
}

fn env(input: &Input) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if input.config.tty {
        env.push("TERM=xterm".into());
    }
    if !input.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", input.hostname));
    }
    env.push(format!("HOME={}", input.home));
    let own = input.config.envs.iter().map(|e| format!("{}={}", e.key, e.value));
    for entry in input.image.env.iter().cloned().chain(own) {
        let name_end = entry.find('=').map_or(entry.len(), |i| i + 1);
        match env.iter_mut().find(|e| e.starts_with(&entry[..name_end])) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }
    env
}

fn namespaces(list: &[(&'static str, Option<String>)]) -> Vec<Value> {
    let one = |(kind, path): &(&str, Option<String>)| match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    };
    list.iter().map(one).collect()
}

fn device(node: &DeviceNode) -> Value {
    json!({
        "path": node.path, "type": node.kind.to_string(), "major": node.major, "minor": node.minor,
        "fileMode": node.mode, "uid": node.uid, "gid": node.gid,
    })
}

/// Zero and empty mean "not said" throughout CRI.
pub(crate) fn resources(from: &v1::LinuxContainerResources, hugepage_sizes: &[String], limits_swap: bool) -> Value {
    let mut cpu = json!({});
    let mut memory = json!({});
    let numbers = [("shares", from.cpu_shares), ("quota", from.cpu_quota), ("period", from.cpu_period)];
    for (name, value) in numbers.into_iter().filter(|(_, v)| *v != 0) {
        cpu[name] = json!(value);
    }
    for (name, value) in [("cpus", &from.cpuset_cpus), ("mems", &from.cpuset_mems)] {
        if !value.is_empty() {
            cpu[name] = json!(value);
        }
    }
    if from.memory_limit_in_bytes != 0 {
        memory["limit"] = json!(from.memory_limit_in_bytes);
    }
    if from.memory_swap_limit_in_bytes != 0 && limits_swap {
        memory["swap"] = json!(from.memory_swap_limit_in_bytes);
    }
    let hugepages: Vec<Value> = from
        .hugepage_limits
        .iter()
        .filter(|h| hugepage_sizes.contains(&h.page_size))
        .map(|h| json!({"pageSize": h.page_size, "limit": h.limit}))
        .collect();
    let mut all = json!({"cpu": cpu, "memory": memory});
    if !hugepages.is_empty() {
        all["hugepageLimits"] = json!(hugepages);
    }
    if !from.unified.is_empty() {
        all["unified"] = json!(from.unified);
    }
    all
}

fn with_devices(mut resources: Value, devices: &[DeviceNode], privileged: bool) -> Value {
    let mut rules = vec![json!({"allow": privileged, "access": "rwm"})];
    if !privileged {
        rules.extend(devices.iter().map(|d| {
            json!({"allow": true, "type": d.kind.to_string(), "major": d.major, "minor": d.minor, "access": d.permissions})
        }));
    }
    resources["devices"] = json!(rules);
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn check_args(command: &str, args_: &str, expected: &str) {
        let config = v1::ContainerConfig { command: words(command), args: words(args_), ..Default::default() };
        let image = ImageConfig { entrypoint: words("/entry -x"), cmd: words("serve"), ..Default::default() };
        assert_eq!(args(&config, &image).join(" "), expected);
    }

    #[test]
    fn command_and_args_replace_the_images_as_the_documentation_table_says() {
        check_args("", "", "/entry -x serve");
        check_args("", "other", "/entry -x other");
        check_args("/bin/sh", "", "/bin/sh");
        check_args("/bin/sh", "-c true", "/bin/sh -c true");
    }

    #[test]
    fn the_pods_environment_wins_over_the_images_and_the_images_over_the_default() {
        let config = v1::ContainerConfig {
            envs: vec![v1::KeyValue { key: "A".into(), value: "pod=1".into() }],
            ..Default::default()
        };
        let image = ImageConfig { env: vec!["A=image".into(), "PATH=/bin".into()], ..Default::default() };
        let input = Input {
            config: &config,
            security: &Default::default(),
            resources: &Default::default(),
            image: &image,
            user: &User::default(),
            home: "/root".into(),
            hostname: "web-0",
            rootfs: "/r",
            cgroup: "/c",
            namespaces: Vec::new(),
            mounts: Vec::new(),
            root_propagation: "",
            devices: Vec::new(),
            bounding: capability::Set::bounding(""),
            seccomp: None,
            hugepage_sizes: Vec::new(),
            limits_swap: false,
        };
        assert_eq!(env(&input), ["PATH=/bin", "HOSTNAME=web-0", "HOME=/root", "A=pod=1"]);
    }

    #[test]
    fn only_hugepage_sizes_of_the_kernel_are_limited() {
        let limit = |size: &str| v1::HugepageLimit { page_size: size.into(), limit: 4 };
        let from = v1::LinuxContainerResources {
            hugepage_limits: vec![limit("2MB"), limit("64KB")],
            memory_limit_in_bytes: 64,
            memory_swap_limit_in_bytes: 64,
            ..Default::default()
        };
        let found = resources(&from, &["2MB".into()], false);
        assert_eq!(
            found,
            json!({"cpu": {}, "memory": {"limit": 64}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4}]})
        );
    }
}

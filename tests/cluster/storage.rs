//! Volumes that outlive pods.

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::{Cluster, eventually};

pub const TESTS: &[(&str, Test)] = &[
    ("storage::data_of_the_default_class_outlives_its_pod_and_goes_with_its_claim", default_class),
    ("storage::a_volume_made_by_hand_is_bound_and_kept", by_hand),
    ("storage::an_ephemeral_volume_lives_as_long_as_its_pod", ephemeral),
];

/// Adds a line to its volume each time it starts.
pub const STATEFUL: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsUser: 1000, fsGroup: 2000}
      containers:
      - name: db
        image: test/busybox:1
        command: [sh, -c, "echo started >> /data/log; sleep 3600"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

/// How often the pod of `STATEFUL` has started on its volume.
pub fn starts(c: &Cluster, namespace: &str) -> Result<usize> {
    Ok(c.kubectl(&["exec", "-n", namespace, "db-0", "--", "cat", "/data/log"])?.lines().count())
}

fn default_class(c: &Cluster) -> Result<()> {
    let ns = "storage-default";
    c.namespace(ns)?;
    c.kubectl_in(&["apply", "-n", ns, "-f", "-"], STATEFUL)?;
    c.kubectl(&["rollout", "status", "-n", ns, "statefulset/db", "--timeout=60s"])?;
    // Ready is not yet running: the shell may still be on its way to its first line.
    eventually("the first start is written down", || {
        ensure!(starts(c, ns)? == 1);
        Ok(())
    })?;
    let mode = c.kubectl(&["exec", "-n", ns, "db-0", "--", "stat", "-c", "%a %g", "/data"])?;
    ensure!(mode == "2777 2000\n", "the volume does not belong to the pod's group: {mode}");
    c.kubectl(&["delete", "pod", "-n", ns, "db-0"])?;
    eventually("the pod is back with its data", || {
        ensure!(starts(c, ns)? == 2);
        Ok(())
    })?;
    let described = c.kubectl(&["describe", "pvc", "-n", ns, "data-db-0"])?;
    for part in ["Used By:", "db-0", "ProvisioningSucceeded", "minik.dev/local-path"] {
        ensure!(described.contains(part), "{part:?} is not in:\n{described}");
    }
    let volume = c.kubectl(&["get", "pvc", "-n", ns, "data-db-0", "-o", "jsonpath={.spec.volumeName}"])?;
    let node = c.kubectl(&["get", "pod", "-n", ns, "db-0", "-o", "jsonpath={.spec.nodeName}"])?;
    ensure!(directories(c, ns, &node)?.contains(&volume), "the volume has no directory on {node}");
    // While a pod uses it, a claim only promises to go.
    c.kubectl(&["delete", "pvc", "-n", ns, "data-db-0", "--wait=false"])?;
    ensure!(starts(c, ns)? == 2, "the volume went while it was used");
    c.kubectl(&["delete", "statefulset", "-n", ns, "db"])?;
    c.kubectl(&["wait", "--for=delete", "-n", ns, "pvc/data-db-0", "--timeout=60s"])?;
    c.kubectl(&["wait", "--for=delete", &format!("pv/{volume}"), "--timeout=60s"])?;
    ensure!(!directories(c, ns, &node)?.contains(&volume), "the data of {volume} is still on {node}");
    Ok(())
}

/// What lies in the folder of a node's volumes, seen by a pod there.
fn directories(c: &Cluster, ns: &str, node: &str) -> Result<String> {
    let overrides = serde_json::json!({"spec": {
        "nodeName": node, "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "look", "image": "test/busybox:1", "command": ["ls", "/volumes"],
            "volumeMounts": [{"name": "v", "mountPath": "/volumes"}]}],
        "volumes": [{"name": "v", "hostPath": {"path": "/var/lib/minik/volumes", "type": "DirectoryOrCreate"}}],
    }});
    let overrides = format!("--overrides={overrides}");
    c.kubectl(&["run", "look", "-n", ns, "--image=test/busybox:1", "--restart=Never", &overrides])?;
    c.kubectl(&["wait", "-n", ns, "pod/look", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"])?;
    let seen = c.kubectl(&["logs", "-n", ns, "look"])?;
    c.kubectl(&["delete", "pod", "-n", ns, "look", "--now"])?;
    Ok(seen)
}

fn by_hand(c: &Cluster) -> Result<()> {
    let ns = "storage-by-hand";
    c.namespace(ns)?;
    c.apply(&format!(
        r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: by-hand}}
spec:
  capacity: {{storage: 2Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: by-hand
  hostPath: {{path: /tmp/by-hand}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: wants, namespace: {ns}}}
spec:
  storageClassName: by-hand
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Gi}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: too-late, namespace: {ns}}}
spec:
  storageClassName: by-hand
  volumeName: by-hand
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 3Gi}}}}
"#
    ))?;
    let phase = |what: &str, wanted: &str| {
        let wait = format!("--for=jsonpath={{.status.phase}}={wanted}");
        c.kubectl(&["wait", "-n", ns, what, &wait, "--timeout=60s"])
    };
    phase("pvc/wants", "Bound")?;
    phase("pv/by-hand", "Bound")?;
    let size = c.kubectl(&["get", "pvc", "-n", ns, "wants", "-o", "jsonpath={.status.capacity.storage}"])?;
    ensure!(size == "2Gi", "a claim has what its volume has, not what it asked for: {size}");
    phase("pvc/too-late", "Pending")?;
    c.kubectl(&["delete", "pvc", "-n", ns, "wants"])?;
    phase("pv/by-hand", "Released")?;
    c.kubectl(&["delete", "pv", "by-hand"])?;
    Ok(())
}

fn ephemeral(c: &Cluster) -> Result<()> {
    let ns = "storage-ephemeral";
    c.namespace(ns)?;
    c.kubectl_in(
        &["apply", "-n", ns, "-f", "-"],
        r#"
apiVersion: v1
kind: Pod
metadata: {name: scratch}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: test/busybox:1
    command: [sh, -c, "echo here > /v/file; sleep 3600"]
    volumeMounts: [{name: v, mountPath: /v}]
  volumes:
  - name: v
    ephemeral:
      volumeClaimTemplate:
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#,
    )?;
    c.kubectl(&["wait", "-n", ns, "pod/scratch", "--for=condition=Ready", "--timeout=60s"])?;
    let owner =
        c.kubectl(&["get", "pvc", "-n", ns, "scratch-v", "-o", "jsonpath={.metadata.ownerReferences[0].name}"])?;
    ensure!(owner == "scratch", "the claim's owner is {owner:?}");
    c.kubectl(&["delete", "pod", "-n", ns, "scratch"])?;
    c.kubectl(&["wait", "--for=delete", "-n", ns, "pvc/scratch-v", "--timeout=60s"])?;
    Ok(())
}

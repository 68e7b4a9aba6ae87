//! A release of our chart, from install to uninstall, by the real helm.
//!
//! Owns: what a chart may ask of a cluster: hooks, a kind of its own, what the cluster can do, drift, a release taken back.
//! Called by: the shared cluster's run.
//! Never: looks into what helm keeps in its Secrets.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::harness::{Cluster, text};

pub const TESTS: &[(&str, Test)] = &[("helm::releases_are_installed_upgraded_taken_back_and_removed", releases)];

/// scripts/prepare finds helm in a package made for one architecture.
const EXISTS_HERE: bool = cfg!(target_arch = "x86_64");

struct Release<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    chart: String,
}

impl<'a> Release<'a> {
    fn new(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/chart");
        cluster.namespace(namespace)?;
        Ok(Self { cluster, namespace, chart: chart.to_str().context("UTF-8")?.to_string() })
    }

    /// `helm verb web args`; what it printed, and whether it succeeded.
    fn ask(&self, verb: &str, args: &[&str]) -> Result<(bool, String)> {
        let charted = matches!(verb, "install" | "upgrade");
        let mut all = vec![verb, "web", "-n", self.namespace];
        all.extend(charted.then_some(self.chart.as_str()));
        if charted || verb == "rollback" {
            all.extend(["--wait", "--timeout=60s"]);
        }
        all.extend(args);
        let output = self.cluster.command("helm", &all).output();
        let output = output.context("helm is not on PATH; scripts/prepare tests brings it")?;
        Ok((output.status.success(), text(&output)))
    }

    fn helm(&self, verb: &str, args: &[&str]) -> Result<String> {
        let (succeeded, said) = self.ask(verb, args)?;
        ensure!(succeeded, "helm {verb} {}: {said}", args.join(" "));
        Ok(said)
    }

    fn fails(&self, verb: &str, args: &[&str], why: &str) -> Result<()> {
        let (succeeded, said) = self.ask(verb, args)?;
        ensure!(!succeeded && said.contains(why), "helm {verb} {} was to fail for {why:?}: {said}", args.join(" "));
        Ok(())
    }

    fn get(&self, what: &str, path: &str) -> Result<String> {
        self.cluster.kubectl(&["get", what, "-n", self.namespace, "-o", &format!("jsonpath={path}")])
    }

    /// Replicas of the Deployment, and colours of it and of the Lamp.
    fn state(&self) -> Result<String> {
        let deployment = "{.status.readyReplicas} {.spec.template.spec.containers[0].env[0].value} ";
        Ok(self.get("deployment/web", deployment)? + &self.get("lamp/web", "{.spec.colour}")?)
    }

    fn hook_said(&self, hook: &str) -> Result<String> {
        self.cluster.kubectl(&["logs", "-n", self.namespace, &format!("job/web-{hook}")])
    }
}

fn same(what: &str, got: &str, want: &str) -> Result<()> {
    ensure!(got == want, "{what}: {got:?}, not {want:?}");
    Ok(())
}

fn releases(c: &Cluster) -> Result<()> {
    if !EXISTS_HERE {
        eprintln!("skipped: there is no helm for this architecture");
        return Ok(());
    }
    // One after the other: a second helm would find the kind of `crds/` there and not wait until it is established.
    server_side(c)?;
    client_side(c)
}

fn server_side(c: &Cluster) -> Result<()> {
    let r = Release::new(c, "helm")?;
    // The kind of `crds/` is established and discovered within the same command that makes an object of it.
    ensure!(r.helm("install", &[])?.contains("Revision 1 of web is red."), "the notes are not shown");
    same("after install", &r.state()?, "1 red red")?;
    same("pre-install", &r.hook_said("pre-install")?, "pre-install red revision 1\n")?;
    let facts = "{.data.minor} {.data.deployments} {.data.podSecurityPolicies} {.data.namespaceUid}";
    let uid = c.kubectl(&["get", "namespace", "helm", "-o", "jsonpath={.metadata.uid}"])?;
    same("what templates learn", &r.get("configmap/web-facts", facts)?, &format!("37 true false {uid}"))?;
    let password = r.get("secret/web", "{.data.password}")?;

    r.helm("upgrade", &["--set=colour=green,replicas=2"])?;
    same("after upgrade", &r.state()?, "2 green green")?;
    same("post-upgrade", &r.hook_said("post-upgrade")?, "post-upgrade green revision 2\n")?;
    same("a looked-up password", &r.get("secret/web", "{.data.password}")?, &password)?;

    r.fails("upgrade", &["--set=colour=purple"], r#"spec.colour: Unsupported value: "purple""#)?;
    r.fails("upgrade", &["--set=replicas=-1", "--rollback-on-failure"], "spec.replicas: Invalid value: -1")?;
    same("after a failed upgrade", &r.state()?, "2 green green")?;
    c.kubectl(&["scale", "deployment/web", "-n", "helm", "--replicas=3"])?;
    r.fails("upgrade", &["--reuse-values"], r#"conflict with "kubectl" with subresource "scale""#)?;
    r.helm("upgrade", &["--reuse-values", "--set=colour=blue", "--force-conflicts"])?;
    same("after a forced upgrade", &r.state()?, "2 blue blue")?;

    r.helm("rollback", &["1"])?;
    same("after rollback", &r.state()?, "1 red red")?;
    let tested = r.helm("test", &["--logs"])?;
    ensure!(tested.contains("Succeeded") && tested.contains("the lamp is red"), "helm test: {tested}");
    let history = r.helm("history", &[])?;
    ensure!(history.contains("Rollback to 1") && history.matches("superseded").count() >= 3, "history: {history}");
    r.helm("uninstall", &["--wait"])?;
    gone(&r)
}

/// Three-way merges from here instead of server-side apply, as helm did before 4.
fn client_side(c: &Cluster) -> Result<()> {
    let r = Release::new(c, "helm-client-side")?;
    r.helm("install", &["--server-side=false"])?;
    // What somebody else added stays through an upgrade.
    c.kubectl(&["label", "deployment/web", "-n", r.namespace, "kept=yes"])?;
    r.helm("upgrade", &["--server-side=false", "--set=colour=green,replicas=2"])?;
    same("after upgrade", &r.state()?, "2 green green")?;
    same("another's label", &r.get("deployment/web", "{.metadata.labels.kept}")?, "yes")?;
    r.helm("rollback", &["1", "--server-side=false"])?;
    same("after rollback", &r.state()?, "1 red red")?;
    r.helm("uninstall", &["--wait"])?;
    gone(&r)
}

/// Hooks' objects stay, as helm documents it, but nothing of the release does.
fn gone(r: &Release) -> Result<()> {
    let kinds = "deployments,replicasets,lamps,poddisruptionbudgets,secrets";
    let left = r.cluster.kubectl(&["get", kinds, "-n", r.namespace, "-o", "name"])?;
    same("left after uninstall", &left, "")?;
    let before = r.cluster.kubectl_output(&["get", "job/web-pre-delete", "-n", r.namespace])?;
    ensure!(!before.status.success(), "a hook that is to go when it succeeds is still there");
    r.cluster.kubectl(&["delete", "namespace", r.namespace, "--wait=false"])?;
    Ok(())
}

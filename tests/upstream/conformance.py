#!/usr/bin/env python3
"""Runs upstream's conformance suite against a cluster of minik and writes what came of it.

    scripts/conformance [--focus REGEX] [--skip REGEX] [--sig SIG] [--procs N] [--fresh] [--keep] [--kubeconfig FILE] [--failed]

Owns: which specs run and in which batches, the record of results, and tests/upstream/RESULTS.md.
Called by: scripts/conformance, which has built the suite. Never: counts a spec as passed that did not pass.

Specs run in batches, the parallel ones first; each batch's results are recorded before the next begins, so an
interrupted run goes on with what is left (`--fresh` forgets the record, `--failed` runs again what did not pass).
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import registry

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "target/upstream/bin"
HOME = ROOT / "target/upstream/conformance"
RECORD = HOME / "record.json"
RESULTS = ROOT / "tests/upstream/RESULTS.md"
PROFILE = "conformance"
CONFORMANCE = "[Conformance]"
BATCH = 60  # the slowest spec holds up each batch, but what is done is recorded after each
# Specs that cannot run on these machines for a reason outside minik: name -> reason. They are never counted as passed.
NO_REGISTRY = "pulls from a registry, whatever the node has (pull policy Always), and Debian's docker-registry is not installed"
SHELL = "wants the words of busybox's own shell; the image assembled here has bash, since Debian's busybox drops variables"
POD_CERTIFICATES = ("[sig-auth] Projected PodCertificate [FeatureGate:PodCertificateRequest] [FeatureGate:ClusterTrustBundle]"
                    " [FeatureGate:ClusterTrustBundleProjection] ")
PULLING = [
    "[sig-node] ImageVolume should succeed with pod and pull policy of Always [LinuxOnly] [MinimumKubeletVersion:1.35]"
    " [Conformance]",
    POD_CERTIFICATES + "should allow server and client pods to establish an mTLS connection [MinimumKubeletVersion:1.37]"
    " [Conformance]",
]
CANNOT = {
    **({} if registry.available() else dict.fromkeys(PULLING, NO_REGISTRY)),
    "[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly]"
    " [Conformance] [NodeConformance]": SHELL,
}


def output(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def listed():
    """Every spec's full name with whether it must run alone."""
    report = HOME / "list.json"
    suite = BIN / "e2e.test"
    if not report.exists() or report.stat().st_mtime < suite.stat().st_mtime:
        command = [suite, "--ginkgo.dry-run", "--ginkgo.no-color", "--ginkgo.focus", r"\[Conformance\]", f"--ginkgo.json-report={report}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HOME)
    specs = json.loads(report.read_text())[0]["SpecReports"]
    return {name_of(s): serial(s) for s in specs if s["LeafNodeType"] == "It" and CONFORMANCE in name_of(s)}


def name_of(spec):
    return " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]]).strip()


def serial(spec):
    return spec.get("IsSerial", False) or "[Serial]" in name_of(spec)


def sig_of(name):
    found = re.match(r"\[sig-([a-z-]+)\]", name)
    return found.group(1) if found else "none"


class Cluster:
    def __init__(self, minik, kubeconfig):
        self.minik = minik
        self.kubeconfig = kubeconfig or HOME / "kubeconfig"
        self.ours = kubeconfig is None
        self.environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "MINIK_PROFILE": PROFILE, "NO_COLOR": "1",
                            "PATH": f"{ROOT / 'target/tools'}:{os.environ['PATH']}"}

    def call(self, *args):
        subprocess.run([self.minik, *args], check=True, env=self.environment)

    def up(self):
        if not self.ours:
            return
        self.registry = registry.Registry(HOME / "registry") if registry.available() else None
        self.call("start", "--nodes", "3", *(["--registry-mirror", self.registry.mirror()] if self.registry else []))
        there = set(output(self.minik, "image", "list", env=self.environment).split())
        archives = output(sys.executable, ROOT / "tests/upstream/images.py", HOME / "images").split()
        for path in archives:
            if self.registry:
                self.registry.push(path)
            name = json.loads(manifest_of(path))[0]["RepoTags"][0]
            if name not in there:
                self.call("image", "load", path)

    def down(self, keep):
        if self.ours and not keep:
            self.call("delete")
        if self.ours and self.registry:
            self.registry.down()


def manifest_of(path):
    import tarfile
    with tarfile.open(path) as tar:
        return tar.extractfile("manifest.json").read()


def run_batch(cluster, names, procs, number):
    """Runs these specs and returns name -> result; a spec without a word of ginkgo's did not run."""
    folder = HOME / "reports" / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # ginkgo matches against the suite's description followed by the spec's name.
    focus = "|".join(f" {re.escape(n)}$" for n in names).replace("\\ ", " ")
    command = [BIN / "ginkgo", "run", f"--procs={procs}", "--no-color", "--silence-skips", f"--focus={focus}", "--timeout=4h",
               f"--output-dir={folder}", "--json-report=report.json", "--junit-report=junit.xml", "--keep-going", BIN / "e2e.test", "--",
               f"--kubeconfig={cluster.kubeconfig}", "--provider=skeleton", "--dump-logs-on-failure=false",
               "--delete-namespace-on-failure=true", f"--report-dir={folder}"]
    with open(folder / "output.log", "w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=cluster.environment, cwd=folder)
    report = folder / "report.json"
    if not report.exists():
        sys.exit(f"conformance: the suite ended without a report; see {folder / 'output.log'}")
    suite = json.loads(report.read_text())[0]
    results = {}
    for spec in suite["SpecReports"]:
        name = name_of(spec)
        if spec["LeafNodeType"] != "It" or name not in names or spec["State"] in ("skipped", "pending") and not spec.get("Failure"):
            continue
        result = {"state": spec["State"], "seconds": round(spec["RunTime"] / 1e9, 1)}
        if spec["State"] != "passed":
            result["why"] = first_line(spec)
            keep_log(name, spec)
        results[name] = result
    for spec in suite["SpecReports"]:
        if spec["LeafNodeType"] != "It" and spec["State"] not in ("passed", "skipped"):
            print(f"  {spec['LeafNodeType']}: {first_line(spec)}")
    return results


def first_line(spec):
    text = spec.get("Failure", {}).get("Message") or spec["State"]
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else spec["State"]


def keep_log(name, spec):
    folder = HOME / "failed"
    folder.mkdir(exist_ok=True)
    failure = spec.get("Failure", {})
    where = failure.get("Location", {})
    text = f"{name}\n\n{failure.get('Message', '')}\n{where.get('FileName', '')}:{where.get('LineNumber', '')}\n\n{spec.get('CapturedGinkgoWriterOutput', '')}\n{spec.get('CapturedStdOutErr', '')}"
    (folder / (re.sub(r"[^A-Za-z0-9]+", "_", name)[:150] + ".log")).write_text(text)


def summary(specs, record, wall):
    by_sig = collections.defaultdict(collections.Counter)
    for name in specs:
        by_sig[sig_of(name)][outcome(name, record)] += 1
        by_sig[sig_of(name)]["seconds"] += record.get(name, {}).get("seconds", 0)
    lines = [f"{'SIG':<18} {'passed':>7} {'failed':>7} {'cannot':>7} {'not run':>8} {'spec time':>10}"]
    total = collections.Counter()
    for sig in sorted(by_sig):
        total.update(by_sig[sig])
        lines.append(row(sig, by_sig[sig]))
    lines.append(row("all", total))
    lines.append(f"wall time {datetime.timedelta(seconds=round(wall))}")
    return lines


def row(name, count):
    return f"{name:<18} {count['passed']:>7} {count['failed']:>7} {count['cannot']:>7} {count['not run']:>8} {count['seconds']:>8.0f} s"


def outcome(name, record):
    if name in CANNOT:
        return "cannot"
    result = record.get(name)
    if result is None:
        return "not run"
    return "passed" if result["state"] == "passed" else "failed"


def write_results(specs, record, wall, procs):
    commit = output("git", "rev-parse", "--short", "HEAD", cwd=ROOT).strip()
    lines = ["# Conformance", "", f"Kubernetes' conformance suite v1.37.2 against minik at {commit}, 3 nodes, {procs} specs at a time."
             " Written by `scripts/conformance`.", "", "```", *summary(specs, record, wall), "```", ""]
    for sig in sorted({sig_of(n) for n in specs}):
        lines += [f"## {sig}", ""]
        for name in sorted(n for n in specs if sig_of(n) == sig):
            result = record.get(name, {})
            said = {"passed": "passed", "cannot": f"cannot run here: {CANNOT.get(name)}", "not run": "not run",
                    "failed": f"**{result.get('state')}**: {result.get('why')}"}[outcome(name, record)]
            lines.append(f"- {name.replace(' ' + CONFORMANCE, '')}: {said}" + (f" ({result['commit']})" if result.get("commit") not in (None, commit) else ""))
        lines.append("")
    RESULTS.write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(prog="scripts/conformance")
    parser.add_argument("--focus", default="", help="only specs whose name this matches")
    parser.add_argument("--skip", help="no spec whose name this matches")
    parser.add_argument("--sig", help="only specs of this SIG, such as api-machinery")
    parser.add_argument("--procs", type=int, default=6, help="specs at a time")
    parser.add_argument("--fresh", action="store_true", help="forget the record of earlier runs")
    parser.add_argument("--failed", action="store_true", help="run again what did not pass")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("--kubeconfig", help="use this cluster instead of one of its own")
    parser.add_argument("--minik", required=True, help="the binary")
    args = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    specs = listed()
    saved = json.loads(RECORD.read_text()) if RECORD.exists() and not args.fresh else {"wall": 0, "specs": {}}
    record = saved["specs"]
    wanted = [n for n in specs if re.search(args.focus, n) and (not args.sig or sig_of(n) == args.sig) and n not in CANNOT
              and not (args.skip and re.search(args.skip, n))]
    explicit = args.focus or args.sig
    again = (lambda n: record[n]["state"] != "passed") if args.failed or explicit else (lambda n: False)
    left = [n for n in wanted if n not in record or again(n)]
    if not left:
        print("nothing is left to run (--fresh runs everything again)")
    else:
        cluster = Cluster(args.minik, args.kubeconfig)
        cluster.up()
        commit = output("git", "rev-parse", "--short", "HEAD", cwd=ROOT).strip()
        parallel, alone = [n for n in left if not specs[n]], [n for n in left if specs[n]]
        batches = [(parallel[i:i + BATCH], args.procs) for i in range(0, len(parallel), BATCH)]
        batches += [(alone[i:i + BATCH], 1) for i in range(0, len(alone), BATCH)]
        for number, (names, procs) in enumerate(batches, 1):
            begun = time.monotonic()
            print(f"batch {number} of {len(batches)}: {len(names)} specs, {procs} at a time", flush=True)
            results = run_batch(cluster, names, procs, number)
            saved["wall"] += time.monotonic() - begun
            for name, result in results.items():
                record[name] = {**result, "commit": commit}
                if result["state"] != "passed":
                    print(f"  {result['state']}: {name}\n    {result.get('why')}", flush=True)
            missing = [n for n in names if n not in results]
            if missing:
                print(f"  {len(missing)} specs of this batch did not run; the next call runs them", flush=True)
            RECORD.write_text(json.dumps(saved, indent=1))
        cluster.down(args.keep)
    print("\n".join(summary(wanted, record, saved["wall"])))
    slow = sorted((n for n in wanted if n in record), key=lambda n: -record[n]["seconds"])[:10]
    print("slowest:", *(f"  {record[n]['seconds']:>7.1f} s  {n}" for n in slow), sep="\n")
    write_results(specs, record, saved["wall"], args.procs)
    sys.exit(0 if all(outcome(n, record) in ("passed", "cannot") for n in wanted) else 1)


main()

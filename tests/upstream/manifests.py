#!/usr/bin/env python3
"""Applies manifests to upstream's kube-apiserver and to minik's, and compares what kubectl says and what is there then.

    scripts/manifests [--show N] FOLDER...

Owns: both servers while it runs, and the comparison. No controllers run, so that nothing else changes the objects.
Called by: scripts/manifests. Never: keeps a manifest.

Each file is first tried (`--dry-run=server`), then applied server-side and, over that, client-side, once by each of the
two servers; then its objects are read. Exit codes, messages and objects must be the same but for what each server draws.
"""

import argparse
import concurrent.futures
import difflib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "manifests"
SECONDS_MAX = 120
VERBS = [("tried", ["apply", "--server-side", "--dry-run=server"]), ("server-side", ["apply", "--server-side"]),
         ("client-side", ["apply"])]
# What a server draws or reads from a clock.
DRAWN = {"uid", "resourceVersion", "creationTimestamp", "time", "lastTransitionTime", "clusterIP", "clusterIPs", "nodePort",
         "healthCheckNodePort", "controller-uid", "batch.kubernetes.io/controller-uid"}


def kubectl(kubeconfig, *args):
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig) + ".cache"}
    done = subprocess.run(["kubectl", *args], env=env, capture_output=True, text=True, timeout=SECONDS_MAX)
    return done.returncode, done.stdout, done.stderr


def settled(value):
    """An object without what each server draws."""
    if isinstance(value, dict):
        return {k: settled(v) for k, v in sorted(value.items()) if k not in DRAWN}
    if isinstance(value, list):
        # Conditions stand in the order in which controllers came to them.
        are_conditions = all(isinstance(v, dict) and {"type", "status"} <= v.keys() for v in value)
        return [settled(v) for v in (sorted(value, key=lambda v: v["type"]) if are_conditions else value)]
    return value


def spoken(text):
    """A message without addresses, times and revisions."""
    text = re.sub(r"https://127\.0\.0\.1:\d+", "https://server", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    return re.sub(r'resourceVersion: ?"?\d+"?', "resourceVersion: <n>", text)


def outcome(kubeconfig, file):
    """What happens with one file: a text for each verb, and one of the objects that are there."""
    said = {}
    for name, verb in VERBS:
        code, out, err = kubectl(kubeconfig, *verb, "-f", str(file))
        said[name] = spoken(f"exit code {code}\n{out}{err}")
    kubectl(kubeconfig, "wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    _, out, err = kubectl(kubeconfig, "get", "-f", str(file), "-o", "json", "--show-managed-fields", "--ignore-not-found")
    try:
        said["objects"] = json.dumps(settled(json.loads(out or "{}")), indent=1)
    except ValueError:
        said["objects"] = spoken(out + err)
    return said


class Minik:
    def __init__(self, folder):
        command = [os.environ["MINIK"], "apiserver", "--in-memory", "--secure-port", "0", "--data-dir", folder]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.process.stdout.readline()
        self.kubeconfig = pathlib.Path(folder) / "admin.kubeconfig"

    def end(self):
        self.process.terminate()
        self.process.wait()


def compare(upstream, minik, file, name, shown):
    with concurrent.futures.ThreadPoolExecutor(2) as both:
        theirs, ours = both.map(lambda k: outcome(k, file), (upstream, minik))
    differing = [verb for verb in theirs if theirs[verb] != ours[verb]]
    for verb in differing:
        lines = difflib.unified_diff(theirs[verb].splitlines(), ours[verb].splitlines(), "upstream", "minik", "", "", 2, "")
        print(f"{name} {verb}", *list(lines)[:shown], sep="\n    ")
    return not differing


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", type=int, default=30, help="lines of a difference that are shown")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    reference = [ROOT / "scripts/reference"]
    # Every cluster that runs network plugins allows privileged pods, and so does minik.
    env = {**os.environ, "WITHOUT": "kube-scheduler kube-controller-manager", "API_FLAGS": "--allow-privileged"}
    same = files = 0
    with tempfile.TemporaryDirectory() as folder:
        minik = Minik(folder)
        try:
            up = subprocess.run([*reference, "up", NAME], env=env, check=True, capture_output=True, text=True)
            upstream = up.stdout.strip().splitlines()[-1]
            for top in args.folders:
                of_top = 0, 0
                for file in sorted(f for f in top.rglob("*.y*ml")):
                    is_same = compare(upstream, minik.kubeconfig, file, f"{top.name}/{file.relative_to(top)}", args.show)
                    of_top = of_top[0] + 1, of_top[1] + is_same
                print(f"{top.name}: {of_top[1]} of {of_top[0]} files the same", flush=True)
                files, same = files + of_top[0], same + of_top[1]
        finally:
            minik.end()
            subprocess.run([*reference, "down", NAME], check=False)
    print(f"{same} of {files} files the same")
    sys.exit(0 if same == files else 1)


main()

#!/usr/bin/env python3
"""Sends one corpus of requests to upstream's kube-apiserver and to minik's, and compares the answers.

    scripts/replay [--only REGEX] [--show N] [--record] [--keep] [--minik FILE] [--ask ID]

Owns: both servers while it runs, the comparison, tests/upstream/REPLAY.md and the golden answers (`--record`).
Called by: scripts/replay. Never: writes an answer of upstream's that was not normalised.

The corpus is made by corpus.py from discovery, from objects.yaml and from corpus/*.yaml. Differences that are meant
have their reason in decisions.yaml. The golden answers (golden/*.jsonl) are replayed by tests/api/replay.rs without Go.
"""

import argparse
import collections
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import time

import yaml

import corpus
import normal

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/upstream"
GOLDEN = HERE / "golden"
KNOWN = HERE / "known.txt"
SECONDS_MAX = 60
SETTLE_SECONDS_MAX = 2
SLOW_SECONDS = 3
WATCH_SECONDS_MAX = 2
NAME = "replay"


class Server:
    """One API server and a connection that is kept open."""

    def __init__(self, name, port, token):
        self.name, self.port, self.token = name, port, token
        self.context = ssl._create_unverified_context()
        self.connection = None

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=20)

    def send(self, step, method, path, headers, body):
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        if step.get("events") is not None:
            return self.watch(step, path, headers)
        for attempt in (1, 2):
            try:
                self.connection = self.connection or self.connect()
                self.connection.request(method, path, body=body, headers=headers)
                answer = self.connection.getresponse()
                return answer.status, headers_of(answer), answer.read()
            except (http.client.HTTPException, OSError) as error:
                self.connection = None
                if attempt == 2:
                    return 0, {}, f"no answer: {type(error).__name__}".encode()

    def watch(self, step, path, headers):
        """Reads so many events, then hangs up."""
        connection = self.connect()
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            found = headers_of(answer)
            if answer.status != 200:
                return answer.status, found, answer.read()
            connection.sock and connection.sock.settimeout(WATCH_SECONDS_MAX)
            lines = []
            try:
                while len(lines) < step["events"]:
                    line = answer.readline()
                    if not line:
                        break
                    lines.append(line)
            except OSError:
                lines.append(b'{"type":"no more"}\n')
            return 200, found, b"".join(lines)
        finally:
            connection.close()


def headers_of(answer):
    found = collections.defaultdict(list)
    for key, value in answer.getheaders():
        found[key.lower()].append(value)
    return {key: " | ".join(values) for key, values in found.items()}


def free_port_of(kubeconfig):
    text = pathlib.Path(kubeconfig).read_text()
    return int(re.search(r"https://127\.0\.0\.1:(\d+)", text)[1]), re.search(r"token: ([0-9a-f]+)", text)[1]


def main_root():
    """The checkout that has the reference's programs: this one, or that of the repository's main work tree."""
    if (ROOT / "target/upstream/bin/kube-apiserver").exists():
        return ROOT
    common = subprocess.run(["git", "rev-parse", "--git-common-dir"], cwd=ROOT, capture_output=True, text=True, check=True)
    return (ROOT / common.stdout.strip()).resolve().parent


def start_reference():
    root = main_root()
    env = {**os.environ, "WITHOUT": "kube-scheduler kube-controller-manager"}
    subprocess.run(["scripts/reference", "down", NAME], cwd=root, check=True, env=env)
    up = subprocess.run(["scripts/reference", "up", NAME], cwd=root, check=True, env=env, capture_output=True, text=True)
    return Server("upstream", *free_port_of(up.stdout.strip().splitlines()[-1]))


def stop_reference():
    subprocess.run(["scripts/reference", "down", NAME], cwd=main_root(), check=True)


def start_minik(binary, folder):
    tokens = folder / "tokens.csv"
    tokens.write_text('replay-token,admin,admin,"system:masters"\n')
    command = [binary, "apiserver", "--data-dir", folder, "--in-memory", "--secure-port", "0", "--token-auth-file", tokens]
    log = open(folder / "log", "wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    until = time.monotonic() + SECONDS_MAX
    while time.monotonic() < until and process.poll() is None:
        for kubeconfig in folder.glob("*.kubeconfig"):
            port = int(re.search(r"https://[^:]+:(\d+)", kubeconfig.read_text())[1])
            server = Server("minik", port, "replay-token")
            status, _, _ = server.send({}, "GET", "/readyz", {}, None)
            if status == 200:
                return process, server
        time.sleep(0.1)
    sys.exit(f"replay: minik does not answer:\n{(folder / 'log').read_text()[-2000:]}")


def run(server, cases):
    """Every answer, normalised: id -> answer. A case's steps may refer to the raw answers of those before."""
    answers = {}
    for case in cases:
        raw, sent, names = {}, {}, normal.Names()
        for step in case["steps"]:
            body = corpus.body_of(step, raw, sent)
            sent[step["name"]] = body
            path = corpus.fill(step["path"], raw)
            data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
            if data is not None:
                data = corpus.fill(data.decode(), raw).encode()
            began = time.monotonic()
            status, headers, content = server.send(step, step["method"], path, step.get("headers", {}), data)
            if time.monotonic() - began > SLOW_SECONDS:
                print(f"slow: {server.name} took {time.monotonic() - began:.1f} s for {case['group']}/{case['case']}/{step['name']}", file=sys.stderr)
            raw[step["name"]] = parsed(content)
            if "settle" in step:
                settle(server, *step["settle"])
            answers[f"{case['group']}/{case['case']}/{step['name']}"] = normal.answer(names, step, status, headers, content)
    return answers


def settle(server, path, condition, wanted=None):
    """Waits until what happens in the background after a write has happened; who comes first would be chance."""
    until = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < until:
        status, _, content = server.send({}, "GET", path, {}, None)
        if status != 200 or settled(parsed(content), condition, wanted):
            return
        time.sleep(0.01)


def settled(one, condition, wanted):
    metadata = one["metadata"]
    if "deletionTimestamp" in metadata:
        return not any(name.endswith(".k8s.io") for name in metadata.get("finalizers", []))
    found = [c for c in one.get("status", {}).get("conditions") or [] if c["type"] == condition]
    return any(wanted in (None, c["status"], c.get("reason")) for c in found)


def parsed(content):
    try:
        return json.loads(content)
    except ValueError:
        return None


def difference(a, b, path=""):
    """The places where two trees differ, as (path, theirs, ours)."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b)):
            yield from difference(a.get(key, normal.ABSENT), b.get(key, normal.ABSENT), f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b)):
            yield from difference(x, y, f"{path}[{index}]")
    elif type(a) is not type(b) or a != b:
        yield path, a, b


def short(value, limit=160):
    text = value if value is normal.ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def judge(key, found, decisions):
    """The decision under which every one of these differences falls, or None."""
    reasons = []
    for path, theirs, ours in found:
        for decision in decisions:
            if not re.search(decision.get("id", ""), key) or not re.search(decision.get("path", ""), path):
                continue
            if "theirs" in decision and not re.search(decision["theirs"], short(theirs, 4000)):
                continue
            if "ours" in decision and not re.search(decision["ours"], short(ours, 4000)):
                continue
            reasons.append(decision["reason"])
            break
        else:
            return None
    return reasons[0]


def report(cases, theirs, ours, decisions, show):
    rows, first, decided = collections.defaultdict(collections.Counter), {}, collections.Counter()
    verdicts = {}
    for case in cases:
        for step in case["steps"]:
            key = f"{case['group']}/{case['case']}/{step['name']}"
            found = list(difference(theirs[key], ours[key]))
            row = (case["group"], case["case"], step.get("verb", step["method"].lower()))
            if not found:
                verdicts[key] = "same"
            elif reason := judge(key, found, decisions):
                verdicts[key] = "decision"
                decided[reason] += 1
            else:
                verdicts[key] = "different"
                first.setdefault(row, (key, found))
            rows[row][verdicts[key]] += 1
    if show:
        shown = 0
        for case in cases:
            for step in case["steps"]:
                key = f"{case['group']}/{case['case']}/{step['name']}"
                if verdicts[key] == "different" and shown < show:
                    shown += 1
                    print(f"\n{key}   {step['method']} {step['path']}")
                    for path, a, b in list(difference(theirs[key], ours[key]))[:6]:
                        print(f"   {path}\n      upstream {short(a, 300)}\n      minik    {short(b, 300)}")
    return rows, first, decided, verdicts


def write_markdown(rows, first, decided, count):
    total = sum((row for row in rows.values()), collections.Counter())
    lines = [
        "# Replay",
        "",
        f"The same {sum(total.values())} requests, sent to kube-apiserver v1.37.2 and to minik's API server by `scripts/replay`; answers",
        "compared (status, headers, every field) after normalising uids, times, resource versions and generated names.",
        "",
        "| same | different by decision | different |",
        "|---|---|---|",
        f"| {total['same']} | {total['decision']} | {total['different']} |",
        "",
        "## By group",
        "",
        "| group | same | by decision | different |",
        "|---|---|---|---|",
    ]
    groups = collections.defaultdict(collections.Counter)
    for (group, _, _), row in rows.items():
        groups[group].update(row)
    for group in sorted(groups):
        row = groups[group]
        lines.append(f"| {group} | {row['same']} | {row['decision']} | {row['different']} |")
    lines += ["", "## Decisions", ""]
    lines += [f"- {number} x {reason}" for reason, number in decided.most_common()]
    lines += ["", "## Different, the first of each kind and verb", ""]
    for (group, case, verb), (key, found) in sorted(first.items())[:count]:
        path, theirs, ours = found[0]
        lines.append(f"- `{key}` at `{path}`: {short(theirs, 90)}, minik {short(ours, 90)}".replace("|", "\\|"))
    return "\n".join(lines) + "\n"


def record(cases, theirs, verdicts, complete):
    """Golden answers, a file a group: a line for each case, then one for each step with its request and its answer.
    Unless these are all groups there are, the others stay as they were recorded."""
    GOLDEN.mkdir(exist_ok=True)
    groups = {case["group"] for case in cases}
    for old in GOLDEN.glob("*.jsonl"):
        if complete or old.stem in groups:
            old.unlink()
    files = collections.defaultdict(list)
    line = lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for case in cases:
        if case.get("live") or not case["steps"]:
            continue
        base = os.path.commonprefix([s["path"] for s in case["steps"]])
        files[case["group"]].append(line({"case": case["case"], "base": base}))
        before = {}
        for step in case["steps"]:
            key = f"{case['group']}/{case['case']}/{step['name']}"
            kept = {k: v for k, v in step.items() if k in corpus.REQUEST_FIELDS and k not in ("path", "method")}
            kept["headers"] = {k: v for k, v in step["headers"].items() if (k, v) != corpus.USUAL_CONTENT}
            if not kept["headers"]:
                del kept["headers"]
            request = f"{step['method']} {step['path'][len(base):]}"
            answer = normal.packed(case, theirs[key], before)
            files[case["group"]].append(line({"step": step["name"], "request": request, **kept, "answer": answer}))
            before[step["name"]] = None if "hash" in answer else theirs[key]["body"]
    for group, lines in files.items():
        (GOLDEN / f"{group}.jsonl").write_text("\n".join(lines) + "\n")
    live = {f"{c['group']}/{c['case']}/{s['name']}" for c in cases if c.get("live") for s in c["steps"]}
    before = KNOWN.read_text().splitlines() if KNOWN.exists() else []
    others = [] if complete else [line for line in before if line.split(" ", 1)[1].split("/")[0] not in groups]
    moving = [line for line in before if line.startswith("moving ") and line not in others]
    skipped = live | {line.split(" ", 1)[1] for line in moving}
    judged = {key: verdict for key, verdict in verdicts.items() if key.split("/")[0] in groups and key not in skipped}
    known = others + moving + [f"{verdict} {key}" for key, verdict in judged.items() if verdict != "same"]
    KNOWN.write_text("".join(line + "\n" for line in sorted(known, key=lambda line: line.split(" ", 1)[1])))


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", default="", help="cases whose group/case matches (setup always runs)")
    flags.add_argument("--show", type=int, default=40, help="how many different answers to print")
    flags.add_argument("--record", action="store_true", help="write the golden answers and the list of known differences, of groups that --only takes whole")
    flags.add_argument("--keep", action="store_true", help="leave the reference running")
    flags.add_argument("--minik", default=str(ROOT / "target/x86_64-unknown-linux-gnu/debug/minik"))
    flags.add_argument("--ask", help="print both whole answers of the step with this id")
    flags.add_argument("--cached", action="store_true", help="take upstream's answers from the last whole run")
    args = flags.parse_args()
    cache = ROOT / "target/upstream/replay.json"
    decisions = yaml.safe_load((HERE / "decisions.yaml").read_text()) or []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        process, minik = start_minik(args.minik, pathlib.Path(folder))
        try:
            saved = json.loads(cache.read_text()) if args.cached else None
            reference = None if saved else start_reference()
            cases = saved["cases"] if saved else corpus.cases(lambda path: parsed(reference.send({}, "GET", path, {}, None)[2]))
            chosen = [c for c in cases if c["group"].startswith("00") or re.search(args.only, f"{c['group']}/{c['case']}")]
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                theirs = None if saved else pool.submit(run, reference, chosen)
                ours = pool.submit(run, minik, chosen)
                theirs, ours = saved["answers"] if saved else theirs.result(), ours.result()
        finally:
            process.terminate()
            process.wait(10)
            if not args.keep and not args.cached:
                stop_reference()
    if not args.only and not args.cached:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({"cases": cases, "answers": theirs}))
    (ROOT / "target/upstream").mkdir(parents=True, exist_ok=True)
    (ROOT / "target/upstream/ours.json").write_text(json.dumps(ours))
    rows, first, decided, verdicts = report(chosen, theirs, ours, decisions, args.show)
    total = collections.Counter(verdicts.values())
    print(f"\n{len(verdicts)} requests in {time.monotonic() - began:.0f} s: {total['same']} same, {total['decision']} different by decision, {total['different']} different")
    if args.ask:
        print(json.dumps({"upstream": theirs[args.ask], "minik": ours[args.ask]}, indent=1))
    if not args.only:
        (HERE / "REPLAY.md").write_text(write_markdown(rows, first, decided, 120))
    if args.record:
        groups = {case["group"] for case in chosen if not case["group"].startswith("00")}
        recorded = [case for case in cases if case["group"] in groups] if args.only else cases
        if any(case not in chosen for case in recorded):
            sys.exit("replay: --record needs whole groups")
        record(recorded, theirs, verdicts, complete=not args.only)


if __name__ == "__main__":
    main()

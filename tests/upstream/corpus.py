"""The corpus: every kind x every verb from objects.yaml, and what is subtle by hand from corpus/*.yaml.

Owns: which requests are sent, in which order. Called by: replay.py. Never: knows what the answers should be.

A case is a list of steps that share names; a step is one request:
    name, method, path, headers, then a body that is one of
    body (a tree), text (as it is), from STEP (that step's answer), of STEP (that step's body); the last two with
    set: [[path, value], [path]] (the second removes). `${STEP:path}` anywhere stands for a field of an answer.
    events: N makes it a watch that ends after N events.
    settle: [path, condition, word] waits after the request until something in the background has done its work there: the
    object is gone, or waits for nobody of Kubernetes' own to let it go, or has the condition (with that status or reason).
"""

import copy
import json
import pathlib
import re

import yaml

HERE = pathlib.Path(__file__).resolve().parent
# What a body is when nothing else is said; golden files leave it out.
USUAL_CONTENT = ("Content-Type", "application/json")
REQUEST_FIELDS = ("method", "path", "headers", "body", "text", "from", "of", "set", "events", "settle")
PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
PROTOBUF = "application/vnd.kubernetes.protobuf"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
# Kinds whose cases are whole; the others leave out what every kind answers by the same code.
WHOLE = {"configmaps", "pods", "services", "nodes", "deployments", "customresourcedefinitions", "leases", "clusterroles"}
THIN = {
    "reads": {"any", "table-wide", "kubectl", "html", "version-0", "version-bad", "pretty"},
    "lists": {"labels-exist", "labels-not", "labels-in", "labels-notin", "bad-labels", "bad-labels-value", "bad-continue", "bad-limit", "bad-field-selector", "match-alone", "match-odd", "exact-0", "exact", "not-older", "version-bad", "by-other-name", "watch-bad", "watch-initial-alone", "watch-unset", "yaml", "version-0"},
    "writes": {"other-uid", "bad-version", "other-kind", "other-version", "finalizer", "no-name", "empty", "dry"},
    "patches": {"merge-same", "merge-remove", "merge-manager", "strategic-odd", "strategic-delete", "json-test", "json-missing", "json-odd", "json-object", "apply-nameless", "apply-managed", "apply-other-kind", "apply-yaml", "media", "cut", "force-merge", "stale", "name", "no-managers", "apply-nothing", "apply-same"},
    "refusals": {"only-kind", "only-name", "generated", "long-name", "bad-annotations", "labels-list", "number-label", "owner", "version", "unknown", "unknown-ignore", "validation-odd", "twice", "case", "other-version", "other-kind", "list", "string", "cut", "yaml", "media", "protobuf-cut", "dry-odd", "manager-long", "put-all", "patch-all", "post-one", "sub-unknown", "head", "bad-labels", "partial", "table", "bad-namespace"},
    "ends": {"dry", "other-version", "odd-propagation", "both-propagations", "negative-grace", "odd-body", "cut", "all-dry", "all-bad", "third", "foreground", "more-finalizers", "waits-still"},
    "faces": {"status-partial", "scale-partial", "status-delete", "scale-delete", "status-not-there"},
}
# Kinds about which a controller of the API server says something after a write: which condition, and with which status or reason.
SETTLES = {"customresourcedefinitions": ["Established", "True"], "apiservices": ["Available"], "flowschemas": ["Dangling", "Found"]}
# So many changes of an object are tried, spread evenly over its fields.
CHANGES_MAX = {True: 60, False: 20}
KEPT_OUT = ("apiVersion", "kind", "metadata")


def fill(text, raw):
    def found(match):
        value = raw.get(match[1])
        for part in match[2].split("."):
            value = value[int(part)] if isinstance(value, list) and part.isdigit() and int(part) < len(value) else (value or {}).get(part) if isinstance(value, dict) else None
        return "missing" if value is None else value if isinstance(value, str) else json.dumps(value)

    return re.sub(r"\$\{([^:}]+):([^}]+)\}", found, text)


def body_of(step, raw, sent):
    if "text" in step:
        return step["text"]
    if "body" in step:
        return step["body"]
    if "from" in step:
        base = raw.get(step["from"]) or {}
    elif "of" in step:
        base = sent[step["of"]]
    else:
        return None
    base = copy.deepcopy(base)
    for edit in step.get("set", []):
        change(base, edit[0].split("/"), edit[1:])
    return base


def change(value, path, to):
    """Sets or removes one place; objects on the way that are missing are made, a place that cannot be is left alone."""
    for part in path[:-1]:
        if isinstance(value, dict):
            if not isinstance(value.get(part), (dict, list)):
                value[part] = {}
            value = value[part]
        elif int(part) < len(value):
            value = value[int(part)]
        else:
            return
    part = path[-1]
    if isinstance(value, dict):
        if to:
            value[part] = to[0]
        else:
            value.pop(part, None)
    elif isinstance(value, list) and int(part) < len(value):
        value[int(part)] = to[0] if to else None
        if not to:
            del value[int(part)]


# What the cases that are made of kinds are called by; a written file whose name comes before it is sent before them.
GENERATED = "10-"


def cases(get):
    files = sorted((HERE / "corpus").glob("*.yaml"))
    everything = [setup()]
    for file in files:
        if file.name < GENERATED:
            everything += written(file)
    objects = {}
    for file in sorted(HERE.glob("objects/*.yaml")):
        for entry in yaml.safe_load(file.read_text()):
            objects[(entry["of"], entry["plural"])] = entry
    for group in ["/api/v1", *(f"/apis/{v['preferredVersion']['groupVersion']}" for v in get("/apis")["groups"]), "/apis/autoscaling/v1"]:
        found = get(group)
        resources = [r for r in found["resources"] if "/" not in r["name"]]
        subs = {r["name"] for r in found["resources"] if "/" in r["name"]}
        for resource in resources:
            if {"get", "create"} <= set(resource["verbs"]):
                entry = objects.get((found["groupVersion"], resource["name"]))
                if entry is None:
                    raise SystemExit(f"replay: objects/*.yaml has no {found['groupVersion']} {resource['name']}")
                everything += Kind(found["groupVersion"], group, resource, subs, entry).cases()
    for file in files:
        if file.name > GENERATED:
            everything += written(file)
    return everything


def namespace_steps(name):
    return [
        step(f"ns-{name}", "POST", "/api/v1/namespaces", body={"metadata": {"name": name}}),
        step(f"sa-{name}", "POST", f"/api/v1/namespaces/{name}/serviceaccounts", body={"metadata": {"name": "default"}}),
    ]


def setup():
    return {"group": "00-setup", "case": "namespaces", "steps": namespace_steps("replay") + namespace_steps("other") + namespace_steps("default")[1:]}


def step(name, method, path, content=None, **more):
    headers = {}
    if content:
        headers["Content-Type"] = content
    elif "body" in more or "from" in more or "of" in more or "text" in more:
        headers["Content-Type"] = "application/json"
    headers.update(more.pop("headers", {}))
    return {"name": name, "method": method, "path": path, "headers": headers, **more}


class Kind:
    """The cases of one resource."""

    def __init__(self, version, prefix, resource, subs, entry):
        self.version, self.prefix, self.resource, self.entry = version, prefix, resource, entry
        self.plural, self.kind = resource["name"], resource["kind"]
        self.whole = resource["name"] in WHOLE
        self.subs = {s.split("/", 1)[1] for s in subs if s.split("/")[0] == self.plural}
        self.verbs = set(resource["verbs"])
        self.namespace = f"k-{self.plural}" + ("-v1" if version == "autoscaling/v1" else "-events" if version == "events.k8s.io/v1" else "")
        self.group = ("10-" + version.replace("/", "-")) if "/" in version else "10-core-v1"
        inside = f"/namespaces/{self.namespace}" if resource["namespaced"] else ""
        self.collection = f"{prefix}{inside}/{self.plural}"
        self.all = f"{prefix}/{self.plural}"

    def object(self, which, name=None):
        made = copy.deepcopy(self.entry[which])
        text = json.dumps(made).replace("@NS@", self.namespace)
        made = json.loads(text)
        metadata = made.setdefault("metadata", {})
        metadata.setdefault("name", name or which)
        metadata.setdefault("labels", {})["replay"] = self.namespace
        return {"apiVersion": self.version, "kind": self.kind, **made}

    def case(self, name, steps):
        if not self.whole:
            steps = [s for s in steps if s["name"] not in THIN.get(name, ())]
        for index, this in enumerate(steps):
            same = [s["name"] for s in steps[:index] if "body" in s and s["body"] == this.get("body")]
            if same:
                this["of"] = same[0]
                del this["body"]
            if self.plural in SETTLES and this["method"] != "GET" and "dryRun" not in this["path"]:
                changed = self.object("rich" if name == "rich" or this["name"] == "all" else "minimal")["metadata"]["name"]
                this["settle"] = [f"{self.collection}/{changed}", *SETTLES[self.plural]]
        return {"group": self.group, "case": f"{self.plural}-{name}", "steps": steps}

    def cases(self):
        first = self.object("minimal")
        self.name = first["metadata"]["name"]
        self.one = f"{self.collection}/{self.name}"
        made = [self.case("place", namespace_steps(self.namespace))] if self.resource["namespaced"] else []
        made.append(self.case("reads", self.reads(first)))
        made.append(self.case("lists", self.lists()))
        made.append(self.case("writes", self.writes(first)))
        made.append(self.case("patches", self.patches(first)))
        if self.subs & {"status", "scale"}:
            made.append(self.case("faces", self.faces()))
        made.append(self.case("refusals", self.refusals(first)))
        if "rich" in self.entry:
            made.append(self.case("rich", self.rich()))
        made.append(self.case("ends", self.ends(first)))
        return made

    def reads(self, first):
        get = lambda name, accept=None, path="": step(name, "GET", self.one + path, headers={"Accept": accept} if accept else {})
        return [
            step("dry", "POST", f"{self.collection}?dryRun=All", body=first),
            get("not-there"),
            step("create", "POST", f"{self.collection}?fieldManager=replay", body=first),
            step("create-again", "POST", self.collection, body=first),
            get("json", "application/json"),
            get("any", "*/*"),
            get("yaml", "application/yaml"),
            get("protobuf", PROTOBUF),
            get("table", TABLE),
            get("table-wide", TABLE, "?includeObject=Object"),
            get("table-bare", TABLE, "?includeObject=None"),
            get("partial", PARTIAL),
            get("partial-list", PARTIALS),
            get("html", "text/html"),
            get("kubectl", f"{TABLE},application/json"),
            get("version-0", None, "?resourceVersion=0"),
            get("version-bad", None, "?resourceVersion=abc"),
            get("pretty", None, "?pretty=true"),
        ]

    def lists(self):
        mine = f"labelSelector=replay%3D{self.namespace}"
        get = lambda name, query, accept=None, where=self.collection: step(name, "GET", f"{where}?{query}", headers={"Accept": accept} if accept else {}, verb="list")
        steps = [
            get("json", mine),
            get("table", mine, TABLE),
            get("partials", mine, PARTIALS),
            get("protobuf", mine, PROTOBUF),
            get("yaml", mine, "application/yaml"),
            get("everywhere", mine, None, self.all),
            get("by-name", f"{mine}&fieldSelector=metadata.name%3D{self.name}"),
            get("by-other-name", f"{mine}&fieldSelector=metadata.name%21%3D{self.name}"),
            get("by-unknown-field", "fieldSelector=spec.nothing%3Da"),
            get("bad-field-selector", "fieldSelector=a"),
            get("labels-exist", f"{mine},nothing"),
            get("labels-not", f"{mine},%21nothing"),
            get("labels-in", f"labelSelector=replay%20in%20({self.namespace},other)"),
            get("labels-notin", f"{mine},a%20notin%20(b)"),
            get("bad-labels", "labelSelector=a%3D%3D%3Db"),
            get("bad-labels-value", "labelSelector=a%3D-b"),
            get("page", f"{mine}&limit=1"),
            get("page-rest", mine + "&limit=1&continue=${page:metadata.continue}"),
            get("bad-continue", f"{mine}&limit=1&continue=abc"),
            get("bad-limit", f"{mine}&limit=a"),
            get("version-0", f"{mine}&resourceVersion=0"),
            get("exact", mine + "&resourceVersion=${json:metadata.resourceVersion}&resourceVersionMatch=Exact"),
            get("not-older", mine + "&resourceVersion=${json:metadata.resourceVersion}&resourceVersionMatch=NotOlderThan"),
            get("match-alone", f"{mine}&resourceVersionMatch=Exact"),
            get("match-odd", f"{mine}&resourceVersionMatch=Newest&resourceVersion=1"),
            get("exact-0", f"{mine}&resourceVersion=0&resourceVersionMatch=Exact"),
            get("version-bad", f"{mine}&resourceVersion=abc"),
        ]
        if "watch" in self.verbs:
            watch = lambda name, query, accept=None, events=1: step(name, "GET", f"{self.collection}?{mine}&watch=true&{query}", events=events, headers={"Accept": accept} if accept else {}, verb="watch")
            steps += [
                watch("watch-now", "resourceVersion=0"),
                watch("watch-unset", ""),
                watch("watch-table", "resourceVersion=0", TABLE),
                watch("watch-partial", "resourceVersion=0", PARTIAL),
                watch("watch-initial", "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", None, 2),
                watch("watch-initial-alone", "sendInitialEvents=true"),
                watch("watch-bad", "resourceVersion=abc"),
            ]
        return steps

    def writes(self, first):
        put = lambda name, **more: step(name, "PUT", more.pop("path", self.one), **more)
        return [
            step("get", "GET", self.one),
            put("same", **{"from": "get"}),
            put("label", **{"from": "get", "set": [["metadata/labels/more", "a"]]}),
            put("stale", **{"from": "get", "set": [["metadata/labels/more", "b"]]}),
            put("no-version", **{"from": "label", "set": [["metadata/labels/more", "c"], ["metadata/resourceVersion"]]}),
            put("dry", path=f"{self.one}?dryRun=All", **{"from": "no-version", "set": [["metadata/labels/more", "d"]]}),
            put("other-name", **{"from": "get", "set": [["metadata/name", "another"]]}),
            put("other-uid", **{"from": "get", "set": [["metadata/uid", "00000000-0000-4000-8000-000000000000"], ["metadata/resourceVersion"]]}),
            put("no-name", **{"from": "get", "set": [["metadata/name"]]}),
            put("bad-label", **{"from": "get", "set": [["metadata/labels/more", "not valid!"], ["metadata/resourceVersion"]]}),
            put("bad-version", **{"from": "get", "set": [["metadata/resourceVersion", "abc"]]}),
            put("owner", **{"from": "get", "set": [["metadata/resourceVersion"], ["metadata/ownerReferences", [{"kind": "Node", "name": "a"}]]]}),
            put("finalizer", **{"from": "get", "set": [["metadata/resourceVersion"], ["metadata/finalizers", ["not valid"]]]}),
            put("unknown-strict", path=f"{self.one}?fieldValidation=Strict", **{"from": "get", "set": [["metadata/resourceVersion"], ["nothing", 1]]}),
            put("not-there", path=f"{self.collection}/nothing", body=self.object("minimal") | {"metadata": {**first["metadata"], "name": "nothing"}}),
            put("empty", body={}),
            put("other-kind", body={"apiVersion": "v1", "kind": "Nothing", "metadata": {"name": self.name}}),
            put("other-version", **{"from": "get", "set": [["apiVersion", "example.com/v1"]]}),
            step("undo-created", "DELETE", f"{self.collection}/nothing"),
        ]

    def patches(self, first):
        def patch(name, kind, query="", **more):
            return step(name, "PATCH", self.one + (f"?{query}" if query else ""), PATCHES.get(kind, kind), verb="patch", **more)

        labels = lambda value: {"metadata": {"labels": {"patched": value}}}
        applied = {"apiVersion": self.version, "kind": self.kind, "metadata": {"name": self.name, "labels": {"applied": "a"}}}
        return [
            patch("merge", "merge", body=labels("a")),
            patch("merge-same", "merge", body=labels("a")),
            patch("merge-remove", "merge", body=labels(None)),
            patch("merge-manager", "merge", "fieldManager=someone", body={"metadata": {"annotations": {"a": "b"}}}),
            patch("strategic", "strategic", body=labels("b")),
            patch("strategic-delete", "strategic", body={"metadata": {"annotations": {"$patch": "delete"}}}),
            patch("strategic-odd", "strategic", body={"metadata": {"labels": {"$patch": "odd"}}}),
            patch("json", "json", body=[{"op": "add", "path": "/metadata/labels/json", "value": "a"}]),
            patch("json-test", "json", body=[{"op": "test", "path": "/metadata/labels/json", "value": "b"}]),
            patch("json-missing", "json", body=[{"op": "remove", "path": "/metadata/labels/nothing"}]),
            patch("json-odd", "json", body=[{"op": "odd", "path": "/metadata"}]),
            patch("json-object", "json", body={"op": "add"}),
            patch("apply", "apply", "fieldManager=a", body=applied),
            patch("apply-same", "apply", "fieldManager=a", body=applied),
            patch("apply-conflict", "apply", "fieldManager=b", body={**applied, "metadata": {"name": self.name, "labels": {"applied": "b"}}}),
            patch("apply-force", "apply", "fieldManager=b&force=true", body={**applied, "metadata": {"name": self.name, "labels": {"applied": "b"}}}),
            patch("apply-nothing", "apply", "fieldManager=b", body={**applied, "metadata": {"name": self.name}}),
            patch("apply-nameless", "apply", body=applied),
            patch("apply-managed", "apply", "fieldManager=a", body={**applied, "metadata": {"name": self.name, "managedFields": [{"manager": "x"}]}}),
            patch("apply-unknown", "apply", "fieldManager=a", body={**applied, "nothing": 1}),
            patch("apply-other-kind", "apply", "fieldManager=a", body={**applied, "kind": "Nothing"}),
            patch("apply-yaml", "apply", "fieldManager=yaml", text=f"apiVersion: {self.version}\nkind: {self.kind}\nmetadata:\n  name: {self.name}\n  labels: {{yaml: 'yes'}}\n"),
            step("apply-creates", "PATCH", f"{self.collection}/created?fieldManager=a&dryRun=All", PATCHES["apply"], body={**first, "metadata": {"labels": {"replay": self.namespace}, "name": "created"}}, verb="patch"),
            step("merge-not-there", "PATCH", f"{self.collection}/nothing", PATCHES["merge"], body=labels("a"), verb="patch"),
            patch("media", "application/json", body=labels("a")),
            patch("cut", "merge", text='{"metadata": '),
            patch("force-merge", "merge", "force=true", body=labels("a")),
            patch("unknown-strict", "merge", "fieldValidation=Strict", body={"nothing": 1}),
            patch("unknown-warn", "merge", "fieldValidation=Warn&dryRun=All", body={"nothing": 1}),
            patch("stale", "merge", body={"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}}),
            patch("name", "merge", body={"metadata": {"name": "another"}}),
            patch("no-managers", "merge", "dryRun=All", body={"metadata": {"managedFields": []}}),
        ]

    def faces(self):
        steps = []
        for face in sorted(self.subs & {"status", "scale"}):
            path = f"{self.one}/{face}"
            get = lambda name, accept=None: step(f"{face}-{name}", "GET", path, headers={"Accept": accept} if accept else {}, verb=face)
            steps += [
                get("get"), get("table", TABLE), get("protobuf", PROTOBUF), get("partial", PARTIAL),
                step(f"{face}-put", "PUT", path, **{"from": f"{face}-get"}, verb=face),
                step(f"{face}-merge", "PATCH", path, PATCHES["merge"], body={"metadata": {"labels": {"face": "a"}, "annotations": {"face": "a"}}}, verb=face),
                step(f"{face}-unknown", "PATCH", f"{path}?fieldValidation=Strict", PATCHES["merge"], body={face if face == "status" else "spec": {"nothing": 1}}, verb=face),
                step(f"{face}-delete", "DELETE", path, verb=face),
                step(f"{face}-not-there", "GET", f"{self.collection}/nothing/{face}", verb=face),
            ]
            if face == "scale":
                steps += [
                    step("scale-up", "PATCH", path, PATCHES["merge"], body={"spec": {"replicas": 3}}, verb=face),
                    step("scale-negative", "PATCH", path, PATCHES["merge"], body={"spec": {"replicas": -3}}, verb=face),
                    step("scale-apply", "PATCH", f"{path}?fieldManager=s&force=true", PATCHES["apply"], body={"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": self.name}, "spec": {"replicas": 4}}, verb=face),
                    step("scale-whole", "GET", self.one, verb=face),
                ]
            for index, status in enumerate(self.entry.get("status", []) if face == "status" else []):
                steps.append(step(f"status-{index}", "PATCH", path, PATCHES["merge"], body={"status": status}, verb=face))
            if face == "status":
                steps.append(step("status-spec", "GET", self.one, verb=face))
                steps.append(step("status-shown", "GET", self.one, headers={"Accept": TABLE}, verb=face))
                steps.append(step("status-apply", "PATCH", f"{path}?fieldManager=s", PATCHES["apply"], body={"apiVersion": self.version, "kind": self.kind, "metadata": {"name": self.name}, "status": (self.entry.get("status") or [{}])[0]}, verb=face))
        return steps

    def refusals(self, first):
        post = lambda name, query="dryRun=All", **more: step(name, "POST", f"{self.collection}?{query}", verb="create", **more)
        named = lambda **metadata: {**first, "metadata": {**first["metadata"], **metadata}}
        compact = lambda value: json.dumps(value, separators=(",", ":"))
        return [
            post("empty", body={}),
            post("only-kind", body={"apiVersion": self.version, "kind": self.kind}),
            post("only-name", body={"apiVersion": self.version, "kind": self.kind, "metadata": {"name": "bare"}}),
            post("no-name", body={k: v for k, v in named().items() if k != "metadata"}),
            post("generated", "dryRun=All", body={**first, "metadata": {"generateName": "gen-"}}),
            post("bad-name", body=named(name="Not_Valid!")),
            post("long-name", body=named(name="a" * 260)),
            post("bad-namespace", body=named(namespace="another")),
            post("bad-labels", body=named(labels={"a b": "c", "ok": "not valid!"})),
            post("bad-annotations", body=named(annotations={"a b": "c"})),
            post("labels-list", body=named(labels=["a"])),
            post("number-label", body=named(labels={"a": 1})),
            post("owner", body=named(ownerReferences=[{"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "b"}])),
            post("version", body=named(resourceVersion="1")),
            post("uid", body=named(uid="mine", creationTimestamp="2020-01-01T00:00:00Z", generation=7, selfLink="/a", deletionTimestamp="2020-01-01T00:00:00Z")),
            post("unknown", "dryRun=All", body={**first, "nothing": {"a": 1}}),
            post("unknown-strict", "dryRun=All&fieldValidation=Strict", body={**first, "nothing": {"a": 1}, "metadata": {**first["metadata"], "odd": 1}}),
            post("unknown-warn", "dryRun=All&fieldValidation=Warn", body={**first, "nothing": {"a": 1}, "metadata": {**first["metadata"], "odd": 1}}),
            post("unknown-ignore", "dryRun=All&fieldValidation=Ignore", body={**first, "nothing": {"a": 1}}),
            post("validation-odd", "dryRun=All&fieldValidation=Odd", body=first),
            post("twice", "dryRun=All&fieldValidation=Strict", text=compact(named(name="twice"))[:-1] + ',"kind":"' + self.kind + '"}'),
            post("case", "dryRun=All&fieldValidation=Strict", text=compact(named(name="case")).replace('"metadata"', '"Metadata"', 1)),
            post("other-kind", body={**first, "kind": "Nothing"}),
            post("other-version", body={**first, "apiVersion": "example.com/v1"}),
            post("list", body=[first]),
            post("string", text='"a"'),
            post("cut", text=compact(first)[:-4]),
            post("yaml", "dryRun=All", text=yaml.safe_dump(named(name="yaml")), content="application/yaml"),
            post("media", "dryRun=All", text="a", content="text/plain"),
            post("protobuf-cut", "dryRun=All", text="k8s", content=PROTOBUF),
            post("dry-odd", "dryRun=Some", body=first),
            post("manager-long", "dryRun=All&fieldManager=" + "m" * 129, body=first),
            post("partial", "dryRun=All", body=named(name="partial"), headers={"Accept": PARTIAL}),
            post("table", "dryRun=All", body=named(name="table"), headers={"Accept": TABLE}),
            step("put-all", "PUT", self.collection, body=first),
            step("patch-all", "PATCH", self.collection, PATCHES["merge"], body={}),
            step("post-one", "POST", self.one, body=first),
            step("sub-unknown", "GET", f"{self.one}/nothing"),
            step("head", "OPTIONS", self.one),
        ]

    def rich(self):
        rich = self.object("rich")
        name = rich["metadata"]["name"]
        one = f"{self.collection}/{name}"
        steps = [
            step("create", "POST", f"{self.collection}?fieldValidation=Strict", body=rich, verb="create"),
            step("get", "GET", one),
            step("protobuf", "GET", one, headers={"Accept": PROTOBUF}),
            step("table", "GET", one, headers={"Accept": TABLE}),
            step("again", "PUT", one, **{"from": "get"}),
            step("replace", "PUT", one, **{"of": "create"}),
            step("apply", "PATCH", f"{one}?fieldManager=rich&force=true&dryRun=All", PATCHES["apply"], **{"of": "create"}, verb="patch"),
        ]
        for edit in changes(rich, CHANGES_MAX[self.whole]):
            where, what = edit[0].replace("/", "."), edit[1]
            steps.append(step(f"{what}-{where}", "POST", f"{self.collection}?dryRun=All&fieldValidation=Strict", **{"of": "create", "set": [["metadata/name", "changed"] if "name" not in self.entry["rich"].get("metadata", {}) else ["metadata/labels/x", "y"], edit[2]]}, verb="create"))
        for edit in changes(rich, CHANGES_MAX[self.whole])[::5]:
            if edit[1] != "wrong":
                steps.append(step(f"put-{edit[1]}-{edit[0].replace('/', '.')}", "PUT", f"{one}?dryRun=All", **{"from": "get", "set": [["metadata/resourceVersion"], edit[2]]}, verb="update"))
        return steps

    def ends(self, first):
        gone = lambda name, query="", **more: step(name, "DELETE", self.one + (f"?{query}" if query else ""), verb="delete", **more)
        mine = f"labelSelector=replay%3D{self.namespace}"
        steps = [
            step("get", "GET", self.one),
            gone("dry", "dryRun=All"),
            gone("other-uid", body={"preconditions": {"uid": "00000000-0000-4000-8000-000000000000"}}),
            gone("other-version", body={"preconditions": {"resourceVersion": "1"}}),
            gone("odd-propagation", "propagationPolicy=Odd"),
            gone("both-propagations", body={"propagationPolicy": "Orphan", "orphanDependents": True}),
            gone("negative-grace", "gracePeriodSeconds=-1&dryRun=All"),
            gone("odd-body", body={"kind": "Nothing", "apiVersion": "v1"}),
            gone("cut", text="{"),
            gone("uid", body={"preconditions": {"uid": "${get:metadata.uid}"}}),
            gone("again"),
            step("second", "POST", self.collection, body=first, verb="create"),
            step("finalizer", "PATCH", self.one, PATCHES["merge"], body={"metadata": {"finalizers": ["example.com/wait"]}}, verb="patch"),
            gone("waits"),
            gone("waits-still"),
            step("waiting", "GET", self.one),
            step("more-finalizers", "PATCH", self.one, PATCHES["merge"], body={"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}}, verb="patch"),
            step("freed", "PATCH", self.one, PATCHES["json"], body=[{"op": "remove", "path": "/metadata/finalizers"}], verb="patch"),
            step("gone", "GET", self.one),
            step("third", "POST", self.collection, body=first, verb="create"),
            gone("foreground", "propagationPolicy=Foreground"),
            step("fourth", "POST", self.collection, body=first, verb="create"),
            gone("orphan", "propagationPolicy=Orphan"),
            step("left", "GET", f"{self.collection}?{mine}", verb="list"),
        ]
        if "deletecollection" in self.verbs:
            steps += [
                step("all-dry", "DELETE", f"{self.collection}?{mine}&dryRun=All", verb="deletecollection"),
                step("all", "DELETE", f"{self.collection}?{mine}", verb="deletecollection"),
                step("all-bad", "DELETE", f"{self.collection}?labelSelector=a%3D%3D%3Db", verb="deletecollection"),
                step("left-after", "GET", f"{self.collection}?{mine}", verb="list"),
            ]
        if "watch" in self.verbs:
            steps.append(step("watched", "GET", f"{self.collection}?{mine}&watch=true&resourceVersion=${{second:metadata.resourceVersion}}", events=3, verb="watch"))
        return steps


def places(value, path=""):
    """Every place of an object below its metadata, parents first, of lists the first item."""
    for key in value if isinstance(value, dict) else range(min(1, len(value))):
        if not path and key in KEPT_OUT:
            continue
        here = f"{path}/{key}" if path else str(key)
        if "/" in str(key):
            continue
        yield here, value[key]
        if isinstance(value[key], (dict, list)):
            yield from places(value[key], here)


def changes(rich, most):
    """(place, what, edit): each place absent, of the wrong type, and odd; at most so many, spread evenly."""
    found = []
    for here, value in places(rich):
        found.append((here, "absent", [here]))
        if isinstance(value, bool):
            found.append((here, "wrong", [here, "yes"]))
        elif isinstance(value, str):
            found.append((here, "odd", [here, "Not valid!"]))
            found.append((here, "empty", [here, ""]))
        elif isinstance(value, (int, float)):
            found.append((here, "odd", [here, -1]))
            found.append((here, "wrong", [here, "many"]))
        elif isinstance(value, list):
            found.append((here, "empty", [here, []]))
            found.append((here, "twice", [here, [value[0], value[0]]] if value else [here, [None]]))
        else:
            found.append((here, "empty", [here, {}]))
            found.append((here, "wrong", [here, [1]]))
    if len(found) <= most:
        return found
    return [found[i * len(found) // most] for i in range(most)]


def written(file):
    """Cases by hand: `post: PATH` and the like name the method; `patch` needs `type`; `as` and `accept` are headers."""
    made = []
    for entry in yaml.load(file.read_text(), Loader=NoTimes):
        steps = []
        for index, given in enumerate(entry["steps"]):
            given = dict(given)
            method = next(m for m in ("get", "post", "put", "patch", "delete", "options", "head") if m in given)
            path = given.pop(method)
            headers = given.pop("headers", {})
            if "accept" in given:
                headers["Accept"] = {"table": TABLE, "partial": PARTIAL, "partials": PARTIALS, "protobuf": PROTOBUF}.get(given["accept"], given["accept"])
            if "as" in given:
                headers["Impersonate-User"] = given["as"]
            kind = given.get("type", "strategic" if method == "patch" else None)
            content = PATCHES.get(kind, kind)
            more = {k: v for k, v in given.items() if k in ("body", "text", "from", "of", "set", "events", "settle", "whole")}
            steps.append(step(given.get("name", f"{index:02}"), method.upper(), path, content, headers=headers, verb=given.get("verb", method), **more))
        made.append({"group": file.stem, "case": entry["case"], "steps": steps, "live": entry.get("live", False)})
    return made


class NoTimes(yaml.SafeLoader):
    """JSON's types alone."""


NoTimes.yaml_implicit_resolvers = {
    k: [(tag, r) for tag, r in v if tag != "tag:yaml.org,2002:timestamp"] for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

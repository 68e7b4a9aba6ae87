"""What of an answer may differ between two servers that behave the same: replaced by names in angle brackets.

Owns: the normal form of an answer and its packed form in the golden files; tests/api/replay/normal.rs is its twin.
Called by: replay.py. Never: drops a field.
"""

import hashlib
import json
import re

import yaml

ABSENT = "(absent)"
HEADERS = ("content-type", "warning", "retry-after", "allow", "location", "www-authenticate", "cache-control")
USUAL = {"cache-control": "no-cache, private", "content-type": "application/json"}
UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Times of the corpus itself lie before 2025 or after 2089.
TIME = re.compile(r"20(2[5-9]|[3-8][0-9])-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)( m=\+[0-9.]+)?")
AGE = re.compile(r"(\d+[smhd]){1,2}")
VERSIONS = re.compile(r"(ResourceVersion in object meta: |ResourceVersion in record \(|current: |resourceVersion: )\d+")
TOKEN_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")
PORT = re.compile(r":3[0-2]\d{3}/")
GENERATED = re.compile(r"[bcdfghjklmnpqrstvwxz2456789]{5}")
# The field of ObjectMeta in protobuf: as unordered there as in JSON.
MANAGED_FIELDS = 17
# Strings longer than this are kept as a hash in golden files.
LONG = 400
FIELDS_LONG = 150
# An answer that takes more than this is a hash as a whole: in a case that is there to tell facts, and in any other.
BODY_LONG = 12_000
ECHO_LONG = 500
TELLING = ("-reads", "-rich", "-place")


class NoTimes(yaml.SafeLoader):
    """JSON's types alone."""


NoTimes.yaml_implicit_resolvers = {
    k: [(tag, r) for tag, r in v if tag != "tag:yaml.org,2002:timestamp"] for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Names:
    """Uids and resource versions of one case, numbered in the order they are first seen."""

    def __init__(self):
        self.uids, self.versions = {}, {}

    def uid(self, match):
        return self.uids.setdefault(match[0], f"<uid{len(self.uids) + 1}>")

    def version(self, raw):
        return self.versions.setdefault(raw, f"<rv{len(self.versions) + 1}>")

    def text(self, value):
        value = UID.sub(self.uid, value)
        value = TIME.sub(lambda m: "<microtime>" if m[2] else "<time>", value)
        value = VERSIONS.sub(r"\1<rv>", value)
        value = TOKEN_VOLUME.sub("kube-api-access-<generated>", value)
        return PORT.sub(":<port>/", value)

    def walk(self, value, key=""):
        if isinstance(value, dict):
            done = {}
            for k in sorted(value):
                done[k] = self.field(value, k, key)
            return done
        if isinstance(value, list):
            if key == "cells":
                return [self.cell(v) for v in value]
            if key == "managedFields":
                value = sorted(value, key=manager)
            return [self.walk(v, key) for v in value]
        if isinstance(value, str):
            return "<ip>" if given_address(value) else self.text(value)
        return value

    def field(self, parent, k, key):
        v = parent[k]
        if k == "resourceVersion" and key == "metadata" and isinstance(v, str) and v not in ("", "0"):
            return self.version(v) if parent.get("uid") else "<rv>"
        if k == "continue" and v:
            return "<continue>"
        if k == "name" and isinstance(v, str) and parent.get("generateName") and v.startswith(parent["generateName"]):
            rest = v[len(parent["generateName"]):]
            return f"{parent['generateName']}<generated>" if GENERATED.fullmatch(rest) else v
        if k in ("nodePort", "healthCheckNodePort") and isinstance(v, int) and 30085 < v <= 32767:
            return "<port>"
        if k == "token" and isinstance(v, str) and v.startswith("ey"):
            return "<jwt>"
        if k == "remainingItemCount":
            return v
        return self.walk(v, k)

    def cell(self, value):
        if isinstance(value, str) and AGE.fullmatch(value):
            return "<age>"
        return self.walk(value)


def given_address(value):
    """An address the server chose: the corpus itself asks only for those of 10.96.0.0/24, which are not given freely."""
    match = re.fullmatch(r"10\.96\.(\d+)\.(\d+)", value)
    return bool(match) and match[1] != "0"


def manager(entry):
    """Servers order the entries by their second first, which is no fact of theirs."""
    fields = ("operation", "manager", "subresource", "apiVersion")
    return [str(entry.get(f, "")) for f in fields] if isinstance(entry, dict) else []


def answer(names, step, status, headers, content):
    kept = {h: names.text(headers[h]) for h in HEADERS if h in headers}
    kept = {h: v for h, v in kept.items() if USUAL.get(h) != v}
    return {"code": status, "headers": kept, "body": body(names, step, headers, content)}


def body(names, step, headers, content):
    media = headers.get("content-type", "")
    if not content:
        return None
    if step.get("events") is not None and content.startswith(b"{"):
        return {"events": [names.walk(json.loads(line)) for line in content.splitlines()]}
    if "protobuf" in media:
        return {"proto": proto(names, content[4:])}
    try:
        if "yaml" in media:
            return names.walk(yaml.load(content, NoTimes))
        return names.walk(json.loads(content))
    except ValueError:
        return {"text": names.text(content.decode(errors="replace"))}


def proto(names, data):
    """A tree of fields read without their schema: printable text is text, what parses is a message, numbers are numbers."""
    message = []
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = varint(data, at)
            message.append([number, "<time>" if value > 1_700_000_000 and value < 3_000_000_000 else value])
        elif kind == 1:
            message.append([number, data[at:at + 8].hex()])
            at += 8
        elif kind == 5:
            message.append([number, data[at:at + 4].hex()])
            at += 4
        elif kind == 2:
            size, at = varint(data, at)
            if at + size > len(data):
                raise ValueError
            message.append([number, chunk(names, data[at:at + size])])
            at += size
        else:
            raise ValueError
        if number == 0 or at > len(data):
            raise ValueError
    entries = sorted((f for f in message if f[0] == MANAGED_FIELDS), key=canonical)
    return [entries.pop(0) if f[0] == MANAGED_FIELDS else f for f in message]


def chunk(names, data):
    if all(b >= 0x20 and b != 0x7F for b in data):
        try:
            text = data.decode()
            if re.fullmatch(r"\d+", text):
                return "<number>"
            return "<ip>" if given_address(text) else names.text(text)
        except ValueError:
            pass
    try:
        return proto(names, data)
    except (ValueError, IndexError):
        return names.text(data.decode(errors="replace"))


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError


def canonical(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def digest(value):
    return "#" + hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def condensed(value, key="", listed=False):
    """Long prose, printed columns, protobuf and the field lists of managers become hashes; everything else stays as it is."""
    if key in ("columnDefinitions", "proto") or (key == "managedFields" and listed) or (key == "fieldsV1" and len(canonical(value)) > FIELDS_LONG):
        return digest(value)
    if isinstance(value, dict):
        if value.get("reason") == "Invalid" and value.get("message") == told(value):
            value = {**value, "message": "<its causes>"}
        return {k: condensed(v, k, listed) for k, v in value.items()}
    if isinstance(value, list):
        return [condensed(v, "", listed or key in ("items", "rows", "events")) for v in value]
    if isinstance(value, str) and len(value) > LONG:
        return digest(value)
    return value


def told(status):
    """The message that follows from the details of a refusal."""
    details = status.get("details", {})
    causes = [f"{c.get('field')}: {c.get('message')}" for c in details.get("causes", [])]
    kind = details.get("kind", "") + (f".{details['group']}" if "group" in details else "")
    listed = causes[0] if len(causes) == 1 else "[" + ", ".join(causes) + "]"
    return f'{kind} "{details.get("name", "")}" is invalid: {listed}'


def packed(case, whole, before):
    """The answer, its body written as the smallest change to the body of an answer before it in its case."""
    target = condensed(whole["body"])
    found = {"code": whole["code"]}
    if whole["headers"]:
        found["headers"] = whole["headers"]
    if len(canonical(target)) > BODY_LONG:
        return {**found, "hash": digest(target)}
    best = {"body": target}
    for name, earlier in {**before, "": {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": whole["code"]}}.items():
        change = merge_of(condensed(earlier), target)
        if change is None:
            continue
        option = {"like": name, "but": change} if change != {} else {"like": name}
        if len(canonical(option)) < len(canonical(best)):
            best = option
    telling = not case["group"].startswith("10-") or case["case"].endswith(TELLING)
    if not telling and len(canonical(best)) > ECHO_LONG:
        return {**found, "hash": digest(target)}
    return {**found, **best}


def merge_of(base, target):
    """The merge patch that turns one into the other, if there is one."""
    if not isinstance(base, dict) or not isinstance(target, dict):
        return None
    change = {}
    for key in base.keys() - target.keys():
        change[key] = None
    for key, value in target.items():
        if key in base and base[key] == value and type(base[key]) is type(value):
            continue
        if value is None or contains_null(value):
            return None
        if key in base and isinstance(base[key], dict) and isinstance(value, dict):
            inner = merge_of(base[key], value)
            if inner is None:
                return None
            change[key] = inner
        else:
            change[key] = value
    return change


def contains_null(value):
    if isinstance(value, dict):
        return any(v is None or contains_null(v) for v in value.values())
    return False

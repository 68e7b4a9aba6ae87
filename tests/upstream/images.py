#!/usr/bin/env python3
"""Assembles the images that upstream's e2e suite names, from Debian's packages and programs built from Go modules.

    tests/upstream/images.py FOLDER      writes one `docker save` archive an image, and prints their paths

Owns: what is in each image. Called by: conformance.py. Never: pulls anything from an image registry, or runs a
program of an image. An archive that is there already is left as it is.
"""

import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
BIN = HERE.parents[1] / "target/upstream/bin"
E2E = "registry.k8s.io/e2e-test-images/"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What upstream's images have from their distribution and the specs call: package -> the program that shows it is there.
PACKAGES = {
    "busybox-static": "busybox", "bash": "bash", "curl": "curl", "bind9-dnsutils": "dig", "netcat-openbsd": "nc.openbsd",
    "iproute2": "ip", "iperf": "iperf", "socat": "socat", "nginx-light": "nginx", "perl-base": "perl", "util-linux": "ipcmk",
}


def install():
    missing = [package for package, program in PACKAGES.items() if not shutil.which(program, path=PATH)]
    if missing:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit(f"images: missing: {' '.join(missing)}; install these Debian packages")
        # Only files are taken; a package must not start its service here.
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        policy = pathlib.Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        finally:
            if ours:
                policy.unlink()


class Layer:
    """Files of one layer, each with its mode; folders come by themselves."""

    def __init__(self):
        self.entries = {}

    def folder(self, path, mode=0o755):
        for parent in reversed(pathlib.PurePosixPath(path).parents):
            if str(parent) not in ("/", "."):
                self.entries.setdefault(str(parent), ("d", 0o755, None))
        self.entries[path] = ("d", mode, None)

    def data(self, path, content, mode=0o644):
        self.folder(str(pathlib.PurePosixPath(path).parent)) if "/" in path.strip("/") else None
        self.entries[path] = ("f", mode, content)

    def file(self, path, source, mode=None):
        source = pathlib.Path(source)
        self.data(path, source.read_bytes(), mode if mode is not None else source.stat().st_mode & 0o7777)

    def link(self, path, target):
        self.folder(str(pathlib.PurePosixPath(path).parent)) if "/" in path.strip("/") else None
        self.entries[path] = ("l", 0o777, target)

    def program(self, name, at=None):
        """A program of this machine with the shared libraries it loads."""
        source = os.path.realpath(shutil.which(name, path=PATH))
        self.file(at or f"usr/bin/{name}", source, 0o755)
        out = subprocess.run(["ldd", source], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", out):
            self.file(library.lstrip("/"), os.path.realpath(library), 0o755)

    def tree(self, root):
        for path in sorted(pathlib.Path(root).rglob("*")):
            inside = str(path).lstrip("/")
            if path.is_symlink():
                self.link(inside, os.readlink(path))
            elif path.is_file():
                self.file(inside, path)

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(self.entries):
                kind, mode, content = self.entries[path]
                entry = tarfile.TarInfo(path)
                entry.mode = mode
                if kind == "d":
                    entry.type = tarfile.DIRTYPE
                    archive.addfile(entry)
                elif kind == "l":
                    entry.type, entry.linkname = tarfile.SYMTYPE, content
                    archive.addfile(entry)
                else:
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        return out.getvalue()


def userland(passwd=()):
    """What every Linux image has, with busybox under the names of its applets."""
    layer = Layer()
    for folder, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("home", 0o755), ("var/run", 0o755), ("proc", 0o755),
                         ("sys", 0o755), ("dev", 0o755), ("etc", 0o755), ("mnt", 0o755), ("usr/bin", 0o755), ("usr/local/bin", 0o755)):
        layer.folder(folder, mode)
    layer.file("bin/busybox", shutil.which("busybox", path=PATH), 0o755)
    for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            layer.link(f"bin/{applet}", "/bin/busybox")
    # Not Debian's busybox as the shell: it drops variables whose names are no shell names (`data-1`), which upstream's
    # newer one hands on, and it runs its own `nc` whatever PATH says.
    layer.program("bash")
    layer.link("bin/sh", "/usr/bin/bash")
    users = ["root:x:0:0:root:/root:/bin/sh", "daemon:x:1:1:daemon:/usr/sbin:/bin/false", "nobody:x:65534:65534:nobody:/:/bin/false", *passwd]
    layer.data("etc/passwd", ("\n".join(users) + "\n").encode())
    groups = ["root:x:0:", "daemon:x:1:", "mail:x:8:", "nogroup:x:65534:"]
    if passwd:
        groups += ["user-defined-in-image:x:1000:", "group-defined-in-image:x:50000:user-defined-in-image"]
    layer.data("etc/group", ("\n".join(groups) + "\n").encode())
    layer.data("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    # Without NSS modules a glibc program finds no host; they are loaded by name at run time.
    for library in pathlib.Path("/lib/x86_64-linux-gnu").glob("libnss_*.so.2"):
        layer.file(str(library).lstrip("/"), library, 0o755)
    return layer


def tools(layer):
    for name in ("getent", "curl", "dig", "nslookup", "host", "ip", "ss", "iperf", "socat"):
        if name in ("nslookup", "ip"):
            layer.entries.pop(f"bin/{name}", None)
        layer.program(name)
    layer.entries.pop("bin/nc", None)
    layer.program("nc.openbsd", "usr/bin/nc")
    return layer


def agnhost():
    layer = tools(userland(["user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh"]))
    layer.file("agnhost", BIN / "agnhost", 0o755)
    layer.link("agnhost-2", "agnhost")
    layer.folder("uploads", 0o755)
    # Upstream's is made from Alpine, and a spec looks.
    layer.data("etc/os-release", b'NAME="Alpine Linux"\nID=alpine\n')
    images = source("k8s.io/kubernetes") / "test/images"
    for name in ("localhost.crt", "localhost.key"):
        layer.file(name, images / "agnhost/porter" / name, 0o644)
    return layer


def demo(name):
    layer = agnhost()
    html = source("k8s.io/kubernetes") / "test/images" / name / "html"
    for path in html.iterdir():
        layer.file(path.name, path, 0o644)
    return layer


def nginx():
    layer = userland(["www-data:x:33:33:www-data:/var/www:/bin/false"])
    layer.program("nginx", "usr/sbin/nginx")
    for folder in ("var/log/nginx", "var/lib/nginx", "etc/nginx/conf.d", "usr/share/nginx/html"):
        layer.folder(folder)
    layer.data("usr/share/nginx/html/index.html", b"<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n")
    layer.data("etc/nginx/nginx.conf", b"""user root;
worker_processes 1;
error_log /dev/stderr notice;
pid /var/run/nginx.pid;
events { worker_connections 1024; }
http {
  access_log /dev/stdout;
  server { listen 80; location / { root /usr/share/nginx/html; index index.html; } }
}
""")
    return layer


def perl():
    layer = userland()
    layer.program("perl")
    for root in ("/usr/lib/x86_64-linux-gnu/perl-base",):
        layer.tree(root)
    return layer


def single(program, at):
    layer = Layer()
    layer.file(at, BIN / program, 0o755)
    layer.folder("tmp", 0o1777)
    return layer


def nonewprivs():
    layer = userland()
    layer.file("usr/local/bin/nnp", BIN / "nonewprivs", 0o6755)
    return layer


def ipc():
    layer = userland()
    for name in ("ipcmk", "ipcs", "ipcrm"):
        layer.entries.pop(f"bin/{name}", None)
        layer.program(name)
    return layer


def source(module):
    out = subprocess.run(["go", "list", "-mod=mod", "-m", "-f", "{{.Dir}}", module], cwd=HERE, capture_output=True, text=True, check=True)
    return pathlib.Path(out.stdout.strip())


def all_images():
    """Name -> (what makes its layer, what runs in it)."""
    ours = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"]}
    served = {"Entrypoint": ["/agnhost"], "Cmd": ["test-webserver"]}
    web = {"Cmd": ["nginx", "-g", "daemon off;"]}
    return {
        E2E + "agnhost:2.66.1": (agnhost, ours),
        E2E + "agnhost:2.55": (agnhost, ours),
        E2E + "busybox:1.37.0-2": (userland, {"Cmd": ["sh"]}),
        E2E + "glibc-dns-testing:2.1.1": (lambda: tools(userland()), {"Cmd": ["bash"]}),
        E2E + "nginx:1.27.0-2": (nginx, web),
        E2E + "nginx:1.28.0-2": (nginx, web),
        E2E + "kitten:1.8": (lambda: demo("kitten"), served),
        E2E + "nautilus:1.8": (lambda: demo("nautilus"), served),
        E2E + "nonewprivs:1.4": (nonewprivs, {"Cmd": ["nnp"]}),
        E2E + "nonroot:1.5": (userland, {"Cmd": ["sh"], "User": "1234"}),
        E2E + "ipc-utils:1.4": (ipc, {"Cmd": ["sh"]}),
        E2E + "perl:5.26": (perl, {"Cmd": ["perl", "-de0"]}),
        E2E + "sample-apiserver:1.29.2": (lambda: single("sample-apiserver", "sample-apiserver"), {"Entrypoint": ["/sample-apiserver"]}),
        E2E + "sample-device-plugin:1.7": (lambda: single("sample-device-plugin", "sampledeviceplugin"), {"Entrypoint": ["/sampledeviceplugin", "-alsologtostderr"]}),
        "registry.k8s.io/etcd:3.7.0-0": (lambda: single("etcd", "usr/local/bin/etcd"), {"Cmd": ["/usr/local/bin/etcd"]}),
        "registry.k8s.io/pause:3.10.2": (lambda: single("pause", "pause"), {"Entrypoint": ["/pause"], "User": "65535:65535"}),
    }


def archive(name, layer, run):
    diff_id = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "config": {"Env": [f"PATH={PATH}"], **run}, "history": [{"created_by": name}],
    }
    config = json.dumps(config, sort_keys=True).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{diff_id}/layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in ((config_name, config), (f"{diff_id}/layer.tar", layer), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    install()
    for name, (make, run) in all_images().items():
        path = folder / (re.sub(r"[/:]", "_", name) + ".tar")
        if not path.exists() or path.stat().st_mtime < HERE.joinpath("images.py").stat().st_mtime:
            unfinished = path.with_suffix(".new")
            unfinished.write_bytes(archive(name, make().tar(), run))
            unfinished.rename(path)
        print(path)


main()

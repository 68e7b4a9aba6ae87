"""An image registry for the specs that pull whatever the node has: Debian's docker-registry, on the host's bridge address.

Owns: the registry while the suite runs, and pushing archives of images to it. Called by: conformance.py.
Never: listens where anything but this host and its containers reaches it.
"""

import hashlib
import ipaddress
import json
import shutil
import subprocess
import tarfile
import time
import urllib.parse
import urllib.request

PROGRAM = "docker-registry"
SECONDS_MAX = 30
# Always the same: a cluster that was kept knows it.
PORT = 5077
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
# The registry that images' names say and this one stands in for.
STANDS_IN_FOR = "registry.k8s.io"


def available():
    return shutil.which(PROGRAM) is not None


def host():
    """The address at which containers reach this machine."""
    inspect = ["docker", "network", "inspect", "bridge", "-f", "{{json (index .IPAM.Config 0)}}"]
    config = json.loads(subprocess.run(inspect, check=True, capture_output=True, text=True).stdout)
    # A daemon that has just made its bridge tells only the network; the bridge has its first address.
    return config.get("Gateway") or str(ipaddress.ip_network(config["Subnet"])[1])


class Registry:
    def __init__(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.address = f"{host()}:{PORT}"
        config = folder / "config.yml"
        config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\nhttp: {{addr: '{self.address}'}}\n")
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen([PROGRAM, "serve", config], stdout=self.log, stderr=self.log)
        until = time.monotonic() + SECONDS_MAX
        while True:
            try:
                return self.ask("GET", "/v2/") and None
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"conformance: the registry does not answer; see {folder / 'log'}")
                time.sleep(0.1)

    def mirror(self):
        return f"{STANDS_IN_FOR}=http://{self.address}"

    def ask(self, method, path, body=None, media="application/octet-stream"):
        url = path if path.startswith("http") else f"http://{self.address}{path}"
        request = urllib.request.Request(url, method=method, data=body, headers={"Content-Type": media})
        return urllib.request.urlopen(request, timeout=SECONDS_MAX)

    def push(self, archive):
        """The image of a docker-archive, if its name is one of the registry this one stands in for."""
        with tarfile.open(archive) as tar:
            image = json.load(tar.extractfile("manifest.json"))[0]
            registry, name = image["RepoTags"][0].split("/", 1)
            if registry != STANDS_IN_FOR:
                return
            repository, tag = name.rsplit(":", 1)
            blob = lambda path, media: {"mediaType": media, **self.put(repository, tar.extractfile(path).read())}
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": blob(image["Config"], CONFIG),
                "layers": [blob(path, LAYER) for path in image["Layers"]],
            }
        self.ask("PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), MANIFEST)

    def put(self, repository, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        location = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"").headers["Location"]
        joint = "&" if "?" in location else "?"
        self.ask("PUT", f"{location}{joint}digest={urllib.parse.quote(digest)}", data)
        return {"size": len(data), "digest": digest}

    def down(self):
        self.process.terminate()
        self.process.wait(SECONDS_MAX)

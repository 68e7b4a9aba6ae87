"""Python's Kubernetes client against a cluster: what programs written with it do.

    python_client.py everything    each function of EVERYTHING in a namespace of its own, with the current kubeconfig
    python_client.py restart       an informer whose API server is killed and started again: prints `kill`, waits for a line

Called by tests/cluster/python.rs. What a function asserts is what Kubernetes documents, not how minik does it.
"""
import base64, json, logging, queue, sys, threading

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.informer import SharedInformer
from kubernetes.stream import stream

NAMESPACE = "python"
SECONDS_MAX = 60


def config_map(name, team=None, **data):
    labels = {"team": team} if team else None
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def refused(call, *args, **kwargs):
    """The Status of a call that must fail."""
    try:
        answer = call(*args, **kwargs)
    except ApiException as e:
        return e
    raise AssertionError(f"was to be refused, answered {answer}")


def same(got, want):
    assert got == want, f"{got!r}, not {want!r}"


def watch_resumes_where_it_ended():
    core = client.CoreV1Api()
    core.create_namespaced_config_map(NAMESPACE, config_map("seen"))
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="!none")
    assert "seen" in [i.metadata.name for i in listed.items]
    # Made and changed after the list and before the watch: the watch must tell of both, and of nothing from before.
    core.create_namespaced_config_map(NAMESPACE, config_map("watched", step="1"))
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"step": "2"}})
    events, first = [], watch.Watch()
    for event in first.stream(core.list_namespaced_config_map, NAMESPACE,
                              resource_version=listed.metadata.resource_version, timeout_seconds=SECONDS_MAX):
        events.append((event["type"], event["object"].metadata.name, (event["object"].data or {}).get("step")))
        if len(events) == 2:
            first.stop()
    same(events, [("ADDED", "watched", "1"), ("MODIFIED", "watched", "2")])
    core.delete_namespaced_config_map("watched", NAMESPACE)
    second = watch.Watch()
    for event in second.stream(core.list_namespaced_config_map, NAMESPACE,
                               resource_version=first.resource_version, timeout_seconds=SECONDS_MAX):
        same((event["type"], event["object"].metadata.name), ("DELETED", "watched"))
        second.stop()
    # A watch that sends the present first ends it with a bookmark that says so.
    third, present = watch.Watch(), []
    for event in third.stream(core.list_namespaced_config_map, NAMESPACE, resource_version_match="NotOlderThan",
                              send_initial_events=True, allow_watch_bookmarks=True, timeout_seconds=SECONDS_MAX):
        raw = event["raw_object"]
        if event["type"] == "BOOKMARK":
            same(raw["metadata"]["annotations"]["k8s.io/initial-events-end"], "true")
            third.stop()
        else:
            present.append(raw["metadata"]["name"])
    assert "seen" in present and "watched" not in present, present


def informer_follows_a_selection():
    core, seen = client.CoreV1Api(), queue.Queue()
    informer = SharedInformer(core.list_namespaced_config_map, NAMESPACE, label_selector="team=blue")
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        informer.add_event_handler(kind, lambda o, kind=kind: seen.put((kind, o.metadata.name)))
    core.create_namespaced_config_map(NAMESPACE, config_map("before", team="blue"))
    informer.start()
    same(seen.get(timeout=SECONDS_MAX), ("ADDED", "before"))
    core.create_namespaced_config_map(NAMESPACE, config_map("other", team="red"))
    # Coming into and going out of the selection are an addition and a removal to who watches it.
    core.patch_namespaced_config_map("other", NAMESPACE, {"metadata": {"labels": {"team": "blue"}}})
    same(seen.get(timeout=SECONDS_MAX), ("ADDED", "other"))
    core.patch_namespaced_config_map("other", NAMESPACE, {"metadata": {"labels": {"team": None}}})
    same(seen.get(timeout=SECONDS_MAX), ("DELETED", "other"))
    same(sorted(informer.cache.list_keys()), [f"{NAMESPACE}/before"])
    # Not stopped: that waits for the next event, and its thread ends with this program.


def pages_of_a_list_are_one_state():
    core = client.CoreV1Api()
    for i in range(5):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{i}", team="pages"))
    names, token, versions = [], None, set()
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="team=pages", limit=2, _continue=token)
        names += [i.metadata.name for i in page.items]
        versions.add(page.metadata.resource_version)
        token = page.metadata._continue
        if not token:
            break
        core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="team=pages")
    same(names, [f"page-{i}" for i in range(5)])
    same(len(versions), 1)


def every_content_type_of_patches():
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    apps.create_namespaced_deployment(NAMESPACE, deployment("patched", replicas=0, containers=["a", "b"]))
    containers = lambda d: [(c.name, c.image) for c in d.spec.template.spec.containers]
    change = lambda body, kind, **more: apps.patch_namespaced_deployment(
        "patched", NAMESPACE, body, _content_type=f"application/{kind}", **more)
    image = lambda name, image: {"spec": {"template": {"spec": {"containers": [{"name": name, "image": image}]}}}}
    # Strategic: lists of containers are merged by name. Merge: the list is replaced.
    same(containers(change(image("b", "two"), "strategic-merge-patch+json")), [("a", "minik/none"), ("b", "two")])
    same(containers(change(image("c", "three"), "merge-patch+json")), [("c", "three")])
    operations = [{"op": "test", "path": "/spec/replicas", "value": 0}, {"op": "add", "path": "/metadata/labels", "value": {"a.b": "c"}}]
    same(change(operations, "json-patch+json").metadata.labels, {"a.b": "c"})
    operations[0]["value"] = 7
    error = refused(change, operations, "json-patch+json")
    same((error.status, json.loads(error.body)["reason"]), (422, "Invalid"))
    # Apply: fields have managers; another's field needs force; what is no longer said goes.
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1", "b": "1"}}
    apply = lambda body, manager, **more: core.patch_namespaced_config_map(
        "applied", NAMESPACE, body, field_manager=manager, _content_type="application/apply-patch+yaml", **more)
    same(apply(body, "one").data, {"a": "1", "b": "1"})
    error = refused(apply, body | {"data": {"b": "2"}}, "two")
    causes = json.loads(error.body)["details"]["causes"]
    same((error.status, [(c["reason"], c["field"]) for c in causes]), (409, [("FieldManagerConflict", ".data.b")]))
    same(apply(body | {"data": {"b": "2"}}, "two", force=True).data, {"a": "1", "b": "2"})
    same(apply(body | {"data": {"c": "3"}}, "one").data, {"b": "2", "c": "3"})
    managers = core.read_namespaced_config_map("applied", NAMESPACE).metadata.managed_fields
    same(sorted((m.manager, m.operation) for m in managers), [("one", "Apply"), ("two", "Apply")])
    # A status is changed by its own path alone.
    ready = {"status": {"conditions": [{"type": "Available", "status": "Unknown"}]}}
    apps.patch_namespaced_deployment("patched", NAMESPACE, ready | {"spec": {"replicas": 3}}, _content_type="application/merge-patch+json")
    status = apps.patch_namespaced_deployment_status("patched", NAMESPACE, {"spec": {"replicas": 4}}, _content_type="application/merge-patch+json")
    same(status.spec.replicas, 3)
    same(apps.read_namespaced_deployment_scale("patched", NAMESPACE).spec.replicas, 3)
    apps.patch_namespaced_deployment_scale("patched", NAMESPACE, {"spec": {"replicas": 0}})
    error = refused(apps.replace_namespaced_deployment, "patched", NAMESPACE, status)
    same((error.status, error.reason), (409, "Conflict"))
    same(refused(change, {}, "made-up-patch+json").status, 415)


def deletion_goes_as_far_as_it_is_told():
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    sets = lambda: [r.metadata for r in apps.list_namespaced_replica_set(NAMESPACE, label_selector="app=owner").items]
    owner = deployment("owner", replicas=1, containers=["c"])

    def made():
        apps.create_namespaced_deployment(NAMESPACE, owner)
        awaited(apps.list_namespaced_replica_set, "app=owner", lambda o: o.metadata.owner_references)

    made()
    apps.delete_namespaced_deployment("owner", NAMESPACE, propagation_policy="Orphan")
    gone(apps.list_namespaced_deployment, "app=owner")
    awaited(apps.list_namespaced_replica_set, "app=owner", lambda o: not o.metadata.owner_references)
    made()
    left = apps.delete_namespaced_deployment("owner", NAMESPACE, body=client.V1DeleteOptions(propagation_policy="Foreground"))
    # The answer is the object that waits for its dependents, not a Status.
    same((left["metadata"]["name"], left["metadata"]["finalizers"]), ("owner", ["foregroundDeletion"]))
    gone(apps.list_namespaced_deployment, "app=owner")
    same((sets(), core.list_namespaced_pod(NAMESPACE, label_selector="app=owner").items), ([], []))
    made()
    uid = apps.read_namespaced_deployment("owner", NAMESPACE).metadata.uid
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
    same(refused(apps.delete_namespaced_deployment, "owner", NAMESPACE, body=wrong).status, 409)
    done = apps.delete_namespaced_deployment("owner", NAMESPACE, propagation_policy="Background")
    same((done["status"], done["details"]["name"], done["details"]["uid"]), ("Success", "owner", uid))
    gone(apps.list_namespaced_replica_set, "app=owner")
    gone(core.list_namespaced_pod, "app=owner")


def exec_and_logs_of_a_pod():
    core = client.CoreV1Api()
    box = {"name": "box", "image": "test/busybox:1", "command": ["sh", "-c", "echo begun; exec sleep 3600"]}
    body = {"metadata": {"name": "box"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [box]}}
    core.create_namespaced_pod(NAMESPACE, body)
    awaited(core.list_namespaced_pod, None, lambda p: p.metadata.name == "box" and p.status.phase == "Running")
    same(core.read_namespaced_pod_log("box", NAMESPACE), "begun\n")
    run = lambda command, **more: stream(core.connect_get_namespaced_pod_exec, "box", NAMESPACE, command=command,
                                         **({"stdin": False, "stdout": True, "stderr": True, "tty": False} | more))
    same(run(["echo", "in one piece"]), "in one piece\n")
    both = run(["sh", "-c", "read line; echo out $line; echo err >&2; exit 3"], stdin=True, _preload_content=False)
    both.write_stdin("typed\n")
    both.run_forever(timeout=SECONDS_MAX)
    same((both.read_stdout(), both.read_stderr(), both.returncode), ("out typed\n", "err\n", 3))
    many = run(["seq", "400000"], binary=True, _preload_content=False)
    many.run_forever(timeout=SECONDS_MAX)
    same((many.read_channel(1), many.returncode), (b"".join(b"%d\n" % i for i in range(1, 400001)), 0))
    error = refused(run, ["echo"], container="none")
    assert "container none is not valid for pod box" in str(error), error
    core.delete_namespaced_pod("box", NAMESPACE, grace_period_seconds=0)


def dynamic_client_uses_a_kind_made_just_now():
    api = dynamic.DynamicClient(client.ApiClient())
    definitions = api.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    schema = {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3, "maximum": 9}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}}}
    name = "pebbles.python.minik.dev"
    definitions.create(body={
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {"group": "python.minik.dev", "scope": "Namespaced", "versions": [version],
                 "names": {"kind": "Pebble", "plural": "pebbles", "shortNames": ["pb"], "categories": ["stones"]}}})
    watcher = watch.Watch()
    for event in definitions.watch(name=name, timeout=SECONDS_MAX, watcher=watcher):
        conditions = (event["raw_object"].get("status") or {}).get("conditions") or []
        if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
            watcher.stop()
    pebbles = api.resources.get(api_version="python.minik.dev/v1", kind="Pebble")
    same((pebbles.short_names, sorted(pebbles.subresources)), (["pb"], ["scale", "status"]))
    pebble = {"apiVersion": "python.minik.dev/v1", "kind": "Pebble", "metadata": {"name": "p"}, "spec": {}}
    made = pebbles.create(body=pebble, namespace=NAMESPACE)
    same(made.spec.size, 3)
    error = refused(pebbles.patch, body=pebble | {"spec": {"size": 10}}, namespace=NAMESPACE, content_type="application/merge-patch+json")
    assert error.status == 422 and "spec.size in body should be less than or equal to 9" in json.loads(error.body)["message"], error.body
    applied = pebbles.server_side_apply(body=pebble | {"spec": {"size": 5}}, namespace=NAMESPACE, field_manager="py", force_conflicts=True)
    same((applied.spec.size, applied.metadata.generation), (5, 2))
    pebbles.status.patch(body={"metadata": {"name": "p"}, "status": {"size": 4}}, namespace=NAMESPACE, content_type="application/merge-patch+json")
    same(pebbles.scale.get(name="p", namespace=NAMESPACE).to_dict()["status"]["replicas"], 4)
    same([i.metadata.name for i in pebbles.get(namespace=NAMESPACE).items], ["p"])
    pebbles.delete(name="p", namespace=NAMESPACE)
    definitions.delete(name=name)


def tokens_say_who_asks():
    core = client.CoreV1Api()
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "reader"}})
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=3600))
    token = core.create_namespaced_service_account_token("reader", NAMESPACE, request).status.token
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    same((claims["sub"], claims["kubernetes.io"]["serviceaccount"]["name"]), (f"system:serviceaccount:{NAMESPACE}:reader", "reader"))
    of_admin = client.Configuration.get_default_copy()
    bearer = client.Configuration(host=of_admin.host)
    bearer.ssl_ca_cert = of_admin.ssl_ca_cert
    bearer.api_key = {"BearerToken": f"Bearer {token}"}
    who = client.CoreV1Api(client.ApiClient(bearer))
    review = client.AuthenticationV1Api(who.api_client).create_self_subject_review({})
    same(review.status.user_info.username, claims["sub"])
    error = refused(who.list_namespaced_config_map, NAMESPACE)
    want = f'configmaps is forbidden: User "{claims["sub"]}" cannot list resource "configmaps" in API group "" in the namespace "{NAMESPACE}"'
    same((error.status, json.loads(error.body)["message"]), (403, want))
    rbac = client.RbacAuthorizationV1Api()
    rbac.create_namespaced_role(NAMESPACE, {"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]})
    rbac.create_namespaced_role_binding(NAMESPACE, {
        "metadata": {"name": "reader"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE}]})
    eventually(lambda: who.list_namespaced_config_map(NAMESPACE))
    bearer.api_key = {"BearerToken": f"Bearer {token[:-4]}AAAA"}
    same(refused(client.CoreV1Api(client.ApiClient(bearer)).list_namespaced_config_map, NAMESPACE).status, 401)


def yaml_files_are_created():
    documents = [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}},
                 {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {
                     "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": {
                         "restartPolicy": "Never", "containers": [{"name": "c", "image": "minik/none"}]}}}}}}]
    made = utils.create_from_yaml(client.ApiClient(), yaml_objects=documents, namespace=NAMESPACE)
    same([m[0].kind for m in made], ["Service", "CronJob"])
    same(made[0][0].spec.ports[0].target_port, 80)


EVERYTHING = [watch_resumes_where_it_ended, informer_follows_a_selection, pages_of_a_list_are_one_state,
              every_content_type_of_patches, deletion_goes_as_far_as_it_is_told, exec_and_logs_of_a_pod,
              dynamic_client_uses_a_kind_made_just_now, tokens_say_who_asks, yaml_files_are_created]


def everything():
    core, failed = client.CoreV1Api(), []
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    awaited(core.list_namespaced_service_account, None, lambda a: a.metadata.name == "default")
    for part in EVERYTHING:
        try:
            part()
        except Exception as e:
            failed.append(part.__name__)
            logging.exception("%s: %s", part.__name__, e)
    core.delete_namespace(NAMESPACE)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def restart():
    """Whoever started this kills the API server when told to, starts it again, and says so by a line."""
    core, seen = client.CoreV1Api(), queue.Queue()
    core.create_namespaced_config_map("default", config_map("goes"))
    informer = SharedInformer(core.list_namespaced_config_map, "default")
    for kind in ("ADDED", "DELETED"):
        informer.add_event_handler(kind, lambda o, kind=kind: seen.put((kind, o.metadata.name)))
    codes = []
    informer.add_event_handler("ERROR", lambda e: codes.append(getattr(e, "status", None)))
    informer.start()
    while seen.get(timeout=SECONDS_MAX) != ("ADDED", "goes"):
        pass
    first = core.list_namespaced_config_map("default", limit=1)
    old = first.metadata.resource_version
    # Written where the informer does not look: its version is then older than the newest, which a restart forgets.
    for i in range(3):
        core.create_namespaced_config_map("kube-public", config_map(f"elsewhere-{i}"))
    print("kill", flush=True)
    sys.stdin.readline()
    eventually(lambda: core.delete_namespaced_config_map("goes", "default"))
    core.create_namespaced_config_map("default", config_map("comes"))
    told = {seen.get(timeout=SECONDS_MAX), seen.get(timeout=SECONDS_MAX)}
    same(told, {("DELETED", "goes"), ("ADDED", "comes")})
    assert 410 in codes, f"the informer resumed from a version that is gone: {codes}"
    same([n for n in informer.cache.list_keys() if "kube-root-ca" not in n], ["default/comes"])
    expired = refused(list, watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version=old, timeout_seconds=5))
    assert expired.status == 410 and expired.reason.startswith("Expired: too old resource version: "), expired
    error = refused(core.list_namespaced_config_map, "default", resource_version=old, resource_version_match="Exact")
    same((error.status, json.loads(error.body)["reason"]), (410, "Expired"))


def deployment(name, replicas, containers):
    template = {"metadata": {"labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": c, "image": "minik/none"} for c in containers]}}
    return {"metadata": {"name": name, "labels": {"app": name}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}}


def awaited(list_them, selector, wanted):
    """Lists, then watches until one is as wanted."""
    kwargs = {"label_selector": selector} if selector else {}
    listed = list_them(NAMESPACE, **kwargs)
    if any(wanted(o) for o in listed.items):
        return
    watcher = watch.Watch()
    for event in watcher.stream(list_them, NAMESPACE, resource_version=listed.metadata.resource_version, timeout_seconds=SECONDS_MAX, **kwargs):
        if event["type"] != "DELETED" and wanted(event["object"]):
            watcher.stop()
            return
    raise AssertionError(f"none of {list_them.__name__} became as wanted within {SECONDS_MAX} s")


def gone(list_them, selector):
    """Lists, then watches until each has been deleted."""
    listed = list_them(NAMESPACE, label_selector=selector)
    left = {o.metadata.name for o in listed.items}
    if not left:
        return
    watcher = watch.Watch()
    for event in watcher.stream(list_them, NAMESPACE, label_selector=selector,
                                resource_version=listed.metadata.resource_version, timeout_seconds=SECONDS_MAX):
        name = event["object"].metadata.name
        left = left - {name} if event["type"] == "DELETED" else left | {name}
        if not left:
            watcher.stop()
            return
    raise AssertionError(f"{left} of {list_them.__name__} are still there after {SECONDS_MAX} s")


def eventually(call):
    """Until a permission counts or a server is back: neither can be watched for by who has not got it."""
    pause = threading.Event()
    for _ in range(SECONDS_MAX * 20):
        try:
            return call()
        except Exception as e:
            last = e
        pause.wait(0.05)
    raise last


if __name__ == "__main__":
    logging.getLogger("kubernetes.informer.informer").setLevel(logging.CRITICAL)
    config.load_kube_config()
    {"everything": everything, "restart": restart}[sys.argv[1]]()

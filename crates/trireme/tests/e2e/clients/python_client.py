"""The Python package `kubernetes` as a client under test: what its own users call, each with the answer it has to get.

Runs in the cluster of KUBECONFIG, where the administrator calls and a node reports pods as running. Every function is a
test with a namespace of its own; the first argument is the namespace. Ends with 1 when one failed, after all were run.
"""

import base64
import json
import os
import sys
import tempfile
import threading
import traceback

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

# How long something may take that a controller does, in seconds.
PATIENCE = 60


def refused(code, call, *arguments, **options):
    """Calls, which has to fail with a code."""
    try:
        call(*arguments, **options)
    except ApiException as error:
        assert error.status == code, error
        return error
    raise AssertionError(f"{call.__name__} succeeded")


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


def until(what, call, *arguments, **options):
    """Watches until an object is as it should be."""
    watching = watch.Watch()
    for event in watching.stream(call, *arguments, timeout_seconds=PATIENCE, **options):
        if what(event):
            watching.stop()
            return event["object"]
    raise AssertionError(f"{call.__name__}: it was not seen")


def core_objects_are_created_read_changed_and_deleted(namespace):
    core = client.CoreV1Api()
    created = core.create_namespaced_config_map(namespace, config_map("settings", k="1"))
    assert created.metadata.uid and created.metadata.creation_timestamp.tzinfo
    read = core.read_namespaced_config_map("settings", namespace)
    assert read.data == {"k": "1"}
    assert read.to_dict() == created.to_dict()
    read.data["k"] = "2"
    replaced = core.replace_namespaced_config_map("settings", namespace, read)
    assert replaced.data == {"k": "2"}
    # What was read before has an old revision now.
    created.data["k"] = "3"
    refused(409, core.replace_namespaced_config_map, "settings", namespace, created)
    refused(409, core.create_namespaced_config_map, namespace, config_map("settings"))
    listed = core.list_namespaced_config_map(namespace, field_selector="metadata.name=settings")
    assert [item.metadata.name for item in listed.items] == ["settings"]
    deleted = core.delete_namespaced_config_map("settings", namespace)
    assert deleted.status == "Success", deleted
    error = refused(404, core.read_namespaced_config_map, "settings", namespace)
    assert '"reason":"NotFound"' in error.body.replace(" ", ""), error.body

    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="keys"), string_data={"k": "text"})
    secret = core.create_namespaced_secret(namespace, secret)
    assert base64.b64decode(secret.data["k"]) == b"text" and secret.type == "Opaque"
    options = {"dry_run": "All", "field_manager": "python"}
    core.create_namespaced_config_map(namespace, config_map("dry"), **options)
    refused(404, core.read_namespaced_config_map, "dry", namespace)


def lists_come_in_pages_and_collections_are_deleted(namespace):
    core = client.CoreV1Api()
    for number in range(7):
        labels = client.V1ObjectMeta(name=f"map-{number}", labels={"set": "pages"})
        core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=labels))
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(namespace, label_selector="set=pages", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"map-{number}" for number in range(7)], names
    core.delete_collection_namespaced_config_map(namespace, label_selector="set=pages")
    assert core.list_namespaced_config_map(namespace, label_selector="set=pages").items == []


def patches_of_each_kind(namespace):
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    core.create_namespaced_config_map(namespace, config_map("settings", k="1", old="x"))
    # A dictionary is a strategic merge patch for this client, a list a JSON patch.
    patched = core.patch_namespaced_config_map("settings", namespace, {"data": {"k": "2", "old": None}})
    assert patched.data == {"k": "2"}, patched.data
    operations = [{"op": "replace", "path": "/data/k", "value": "3"}, {"op": "test", "path": "/data/k", "value": "3"}]
    patched = core.patch_namespaced_config_map("settings", namespace, operations)
    assert patched.data == {"k": "3"}, patched.data
    failing = [{"op": "test", "path": "/data/k", "value": "no"}]
    refused(422, core.patch_namespaced_config_map, "settings", namespace, failing)
    deployment = deployment_of("patched", 1)
    apps.create_namespaced_deployment(namespace, deployment)
    sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "example.com/side:1"}]}}}}
    patched = apps.patch_namespaced_deployment("patched", namespace, sidecar)
    # Strategic: lists of containers are merged by name, the patch's first.
    names = sorted(container.name for container in patched.spec.template.spec.containers)
    assert names == ["main", "side"], names


def deployment_of(name, replicas):
    container = client.V1Container(
        name="main", image="example.com/web:1", ports=[client.V1ContainerPort(container_port=80)],
        resources=client.V1ResourceRequirements(requests={"cpu": "10m"}),
    )
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": name}), spec=client.V1PodSpec(containers=[container]),
    )
    spec = client.V1DeploymentSpec(
        replicas=replicas, selector=client.V1LabelSelector(match_labels={"app": name}), template=template,
    )
    return client.V1Deployment(
        api_version="apps/v1", kind="Deployment", metadata=client.V1ObjectMeta(name=name), spec=spec,
    )


def a_deployment_is_rolled_out_and_scaled(namespace):
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    apps.create_namespaced_deployment(namespace, deployment_of("web", 2))
    options = {"field_selector": "metadata.name=web"}
    until(lambda event: event["object"].status.available_replicas == 2,
          apps.list_namespaced_deployment, namespace, **options)
    scale = apps.read_namespaced_deployment_scale("web", namespace)
    scale.spec.replicas = 3
    apps.replace_namespaced_deployment_scale("web", namespace, scale)
    until(lambda event: event["object"].status.available_replicas == 3,
          apps.list_namespaced_deployment, namespace, **options)
    pods = core.list_namespaced_pod(namespace, label_selector="app=web").items
    assert len(pods) == 3 and all(pod.status.phase == "Running" for pod in pods)
    deletion = client.V1DeleteOptions(propagation_policy="Foreground")
    apps.delete_namespaced_deployment("web", namespace, body=deletion)
    until(lambda event: event["type"] == "DELETED", apps.list_namespaced_deployment, namespace, **options)
    assert core.list_namespaced_pod(namespace, label_selector="app=web").items == []


def a_pod_is_evicted(namespace):
    core = client.CoreV1Api()
    spec = client.V1PodSpec(containers=[client.V1Container(name="main", image="example.com/lone:1")])
    core.create_namespaced_pod(namespace, client.V1Pod(metadata=client.V1ObjectMeta(name="lone"), spec=spec))
    running = until(lambda event: event["object"].status.phase == "Running", core.list_namespaced_pod, namespace)
    # From there on: its end may come before the next request does.
    since = running.metadata.resource_version
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="lone", namespace=namespace))
    core.create_namespaced_pod_eviction("lone", namespace, eviction)
    until(lambda event: event["type"] == "DELETED", core.list_namespaced_pod, namespace, resource_version=since)


def a_watch_goes_on_where_another_one_ended(namespace):
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("watched", n="0"))
    first = watch.Watch()
    for event in first.stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=PATIENCE):
        if event["object"].metadata.name == "watched":
            assert event["type"] == "ADDED", event["type"]
            first.stop()
    core.patch_namespaced_config_map("watched", namespace, {"data": {"n": "1"}})
    core.delete_namespaced_config_map("watched", namespace)
    second, seen = watch.Watch(), []
    for event in second.stream(core.list_namespaced_config_map, namespace,
                               resource_version=first.resource_version, timeout_seconds=PATIENCE):
        if event["object"].metadata.name == "watched":
            seen.append((event["type"], event["object"].data["n"]))
        if event["type"] == "DELETED":
            second.stop()
    assert seen == [("MODIFIED", "1"), ("DELETED", "1")], seen


def the_dynamic_client_discovers_and_applies(namespace):
    dynamic_client = dynamic.DynamicClient(client.ApiClient())
    maps = dynamic_client.resources.get(api_version="v1", kind="ConfigMap")
    assert dynamic_client.resources.get(api_version="apps/v1", kind="Deployment").namespaced
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": "1"}}
    applied = maps.server_side_apply(body=body, namespace=namespace, field_manager="one")
    assert applied.data.k == "1"
    other = {**body, "data": {"k": "2"}}
    try:
        maps.server_side_apply(body=other, namespace=namespace, field_manager="two")
        raise AssertionError("no conflict")
    except ConflictError as error:
        assert error.summary(), error
    applied = maps.server_side_apply(body=other, namespace=namespace, field_manager="two", force_conflicts=True)
    assert [own.manager for own in applied.metadata.managedFields] == ["two"]
    merged = maps.patch(body={"metadata": {"name": "applied"}, "data": {"more": "x"}}, namespace=namespace,
                        content_type="application/merge-patch+json")
    assert merged.data.to_dict() == {"k": "2", "more": "x"}
    names = [item.metadata.name for item in maps.get(namespace=namespace).items]
    assert "applied" in names, names
    seen = next(iter(maps.watch(namespace=namespace, name="applied", timeout=PATIENCE)))
    assert seen["type"] == "ADDED" and seen["object"].metadata.name == "applied"
    maps.delete(name="applied", namespace=namespace)


def files_of_yaml_are_created(namespace):
    text = f"""
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {{name: one, namespace: {namespace}}}
- apiVersion: networking.k8s.io/v1
  kind: Ingress
  metadata: {{name: web, namespace: {namespace}}}
  spec: {{defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        utils.create_from_yaml(client.ApiClient(), file.name)
    assert client.CoreV1Api().read_namespaced_service("web", namespace).spec.cluster_ip.startswith("10.")
    assert client.NetworkingV1Api().read_namespaced_ingress("web", namespace).spec.default_backend.service.port.number == 80
    assert utils.parse_quantity("1500m") == utils.parse_quantity("1.5")


def a_token_is_an_identity(namespace):
    core = client.CoreV1Api()
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    token = core.create_namespaced_service_account_token("default", namespace, request).status.token
    own = client.Configuration.get_default_copy()
    own.cert_file = own.key_file = None
    own.api_key = {"authorization": f"Bearer {token}"}
    as_account = client.ApiClient(own)
    user = client.AuthenticationV1Api(as_account).create_self_subject_review(client.V1SelfSubjectReview())
    assert user.status.user_info.username == f"system:serviceaccount:{namespace}:default", user
    refused(403, client.CoreV1Api(as_account).list_namespaced_secret, namespace)
    # The same as a kubeconfig has it.
    with open(os.environ["KUBECONFIG"]) as file:
        kubeconfig = yaml.safe_load(file)
    kubeconfig["users"][0]["user"] = {"token": token}
    loaded = config.new_client_from_config_dict(kubeconfig)
    refused(403, client.CoreV1Api(loaded).list_namespaced_secret, namespace)
    role = client.V1Role(metadata=client.V1ObjectMeta(name="reader"),
                         rules=[client.V1PolicyRule(api_groups=[""], resources=["secrets"], verbs=["list"])])
    access = client.RbacAuthorizationV1Api()
    access.create_namespaced_role(namespace, role)
    binding = client.V1RoleBinding(
        metadata=client.V1ObjectMeta(name="readers"),
        role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="reader"),
        subjects=[client.RbacV1Subject(kind="ServiceAccount", name="default", namespace=namespace)],
    )
    access.create_namespaced_role_binding(namespace, binding)
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
        resource_attributes=client.V1ResourceAttributes(verb="list", resource="secrets", namespace=namespace)))
    answer = client.AuthorizationV1Api(loaded).create_self_subject_access_review(review)
    assert answer.status.allowed, answer
    client.CoreV1Api(loaded).list_namespaced_secret(namespace)


def versions_and_groups_are_discovered(namespace):
    version = client.VersionApi().get_code()
    assert (version.major, version.minor) == ("1", "36"), version
    groups = {group.name: group for group in client.ApisApi().get_api_versions().groups}
    assert groups["apps"].preferred_version.group_version == "apps/v1"
    assert client.CoreApi().get_api_versions().versions == ["v1"]
    resources = {resource.name: resource for resource in client.CoreV1Api().get_api_resources().resources}
    assert resources["pods"].namespaced and "po" in resources["pods"].short_names
    assert client.AppsApi().get_api_group().name == "apps"
    assert client.CoreV1Api().read_namespace(namespace).status.phase == "Active"


def other_groups_have_their_calls(namespace):
    job = client.V1CronJob(
        metadata=client.V1ObjectMeta(name="often"),
        spec=client.V1CronJobSpec(schedule="* * * * *", suspend=True, job_template=client.V1JobTemplateSpec(
            spec=client.V1JobSpec(template=client.V1PodTemplateSpec(spec=client.V1PodSpec(
                restart_policy="Never", containers=[client.V1Container(name="c", image="example.com/job:1")]))))),
    )
    batch = client.BatchV1Api()
    assert batch.create_namespaced_cron_job(namespace, job).spec.concurrency_policy == "Allow"
    lease = client.V1Lease(metadata=client.V1ObjectMeta(name="lease"), spec=client.V1LeaseSpec(holder_identity="me"))
    coordination = client.CoordinationV1Api()
    coordination.create_namespaced_lease(namespace, lease)
    assert coordination.read_namespaced_lease("lease", namespace).spec.holder_identity == "me"
    scaler = client.V2HorizontalPodAutoscaler(
        metadata=client.V1ObjectMeta(name="web"),
        spec=client.V2HorizontalPodAutoscalerSpec(max_replicas=3, scale_target_ref=client.V2CrossVersionObjectReference(
            api_version="apps/v1", kind="Deployment", name="web")),
    )
    scaling = client.AutoscalingV2Api()
    assert scaling.create_namespaced_horizontal_pod_autoscaler(namespace, scaler).spec.min_replicas == 1
    old = client.AutoscalingV1Api().read_namespaced_horizontal_pod_autoscaler("web", namespace)
    assert old.spec.max_replicas == 3
    objects = client.CustomObjectsApi()
    leases = objects.list_namespaced_custom_object("coordination.k8s.io", "v1", namespace, "leases")
    assert [item["metadata"]["name"] for item in leases["items"]] == ["lease"]
    event = client.CoreV1Event(
        metadata=client.V1ObjectMeta(name="seen"), reason="Seen", message="It was seen", type="Normal",
        involved_object=client.V1ObjectReference(kind="Lease", name="lease", namespace=namespace),
    )
    client.CoreV1Api().create_namespaced_event(namespace, event)
    listed = client.CoreV1Api().list_namespaced_event(namespace, field_selector="reason=Seen")
    assert [item.message for item in listed.items] == ["It was seen"]


def a_leader_is_elected(namespace):
    led, stopped = threading.Event(), threading.Event()

    def lead():
        led.set()
        # The election ends with the program: nobody can call it back.
        stopped.wait(PATIENCE)

    lock = ConfigMapLock("election", namespace, "one")
    election = electionconfig.Config(
        lock, lease_duration=17, renew_deadline=15, retry_period=5, onstarted_leading=lead, onstopped_leading=None,
    )
    threading.Thread(target=leaderelection.LeaderElection(election).run, daemon=True).start()
    assert led.wait(PATIENCE), "nobody leads"
    lock = client.CoreV1Api().read_namespaced_config_map("election", namespace)
    record = json.loads(lock.metadata.annotations["control-plane.alpha.kubernetes.io/leader"])
    assert record["holderIdentity"] == "one", record
    stopped.set()


TESTS = [
    core_objects_are_created_read_changed_and_deleted,
    lists_come_in_pages_and_collections_are_deleted,
    patches_of_each_kind,
    a_deployment_is_rolled_out_and_scaled,
    a_pod_is_evicted,
    a_watch_goes_on_where_another_one_ended,
    the_dynamic_client_discovers_and_applies,
    files_of_yaml_are_created,
    a_token_is_an_identity,
    versions_and_groups_are_discovered,
    other_groups_have_their_calls,
    a_leader_is_elected,
]


def main():
    config.load_kube_config(os.environ["KUBECONFIG"])
    core, failed = client.CoreV1Api(), 0
    for test in TESTS:
        namespace = "python-" + test.__name__.replace("_", "-")[:50].rstrip("-")
        try:
            core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
            until(lambda event: event["object"].metadata.name == "default", core.list_namespaced_service_account, namespace)
            test(namespace)
            print(f"passed {test.__name__}", flush=True)
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"FAILED {test.__name__}", flush=True)
    print(f"{len(TESTS) - failed} passed, {failed} failed", flush=True)
    # Not `sys.exit`: an election's thread has no end.
    sys.stderr.flush()
    os._exit(1 if failed else 0)


main()

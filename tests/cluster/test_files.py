"""The files that stand a cluster up: valid as far as can be said without one, and closed to strangers."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
LAUNCHER_FILES = sorted(CLUSTER.glob("*.yaml"))
MANIFESTS = [
    (path.name, content)
    for path in sorted((CLUSTER / "kubernetes").glob("*.yaml"))
    for content in yaml.safe_load_all(path.read_text())
]
KINDS = {
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PersistentVolumeClaim": "v1",
    "RayCluster": "ray.io/v1",
    "RayJob": "ray.io/v1",
    "Service": "v1",
    "StatefulSet": "apps/v1",
}

KUBERAY = {
    "RayCluster": {
        "rayVersion": str,
        "authOptions": "authOptions",
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": "autoscalerOptions",
        "headGroupSpec": "headGroupSpec",
        "workerGroupSpecs": "workerGroupSpecs",
        "headServiceAnnotations": dict,
        "suspend": bool,
    },
    "RayJob": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "submitterPodTemplate": dict,
        "rayClusterSpec": "RayCluster",
        "runtimeEnvYAML": str,
        "submissionMode": str,
        "suspend": bool,
    },
    "authOptions": {"mode": str, "secretName": str},
    "autoscalerOptions": {"idleTimeoutSeconds": int, "upscalingMode": str, "resources": dict, "env": dict},
    "headGroupSpec": {"rayStartParams": dict, "template": dict, "serviceType": str},
    "workerGroupSpecs": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "numOfHosts": int,
        "rayStartParams": dict,
        "template": dict,
    },
}
"""What the files here may say of KubeRay's kinds: the type of each key, or the name of what it holds."""


def manifests(*kinds):
    return [content for _, content in MANIFESTS if content["kind"] in kinds]


def pod_templates(content):
    """Every pod template anywhere in a manifest."""
    if isinstance(content, dict):
        if "containers" in content.get("spec", {}):
            yield content
        for value in content.values():
            yield from pod_templates(value)
    elif isinstance(content, list):
        for value in content:
            yield from pod_templates(value)


TEMPLATES = [template for _, content in MANIFESTS for template in pod_templates(content)]


def environment(container):
    return {entry["name"]: entry for entry in container.get("env", [])}


@pytest.mark.parametrize("path", LAUNCHER_FILES, ids=lambda path: path.stem)
def test_launcher_file_is_valid_and_starts_every_node_with_the_token(path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(path.read_text())

    validate_config(prepare_config(dict(config)))

    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in config[key] if "ray start" in command]
        assert starts and all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert all("--dashboard-host=127.0.0.1" in c for c in config["head_start_ray_commands"] if "ray start" in c)


def test_launcher_files_are_for_own_machines_and_three_clouds():
    assert [path.stem for path in LAUNCHER_FILES] == ["aws", "azure", "gcp", "on-premise"]


@pytest.mark.parametrize(("file", "content"), MANIFESTS, ids=lambda value: value if isinstance(value, str) else "")
def test_manifest_has_the_fields_of_its_kind(file, content):
    assert content["apiVersion"] == KINDS[content["kind"]]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", content["metadata"]["name"])
    assert content["metadata"]["namespace"] == "lrsearch"
    spec = content.get("spec", {})
    if content["kind"] in ("Deployment", "StatefulSet"):
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
    if content["kind"] == "Service":
        assert spec.get("type", "ClusterIP") == "ClusterIP"  # nothing is published
        assert any(spec["selector"].items() <= t["metadata"]["labels"].items() for t in TEMPLATES if "metadata" in t)
    cluster = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec")}.get(content["kind"])
    if cluster:
        assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-token"}
        assert {"rayVersion", "headGroupSpec", "workerGroupSpecs"} <= cluster.keys()
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(("file", "content"), MANIFESTS, ids=lambda value: value if isinstance(value, str) else "")
def test_manifest_keeps_to_the_schema(file, content):
    """Kubernetes' own, and of Ray's kinds the keys of KubeRay 1.6 and Kubernetes' schema of their pods."""
    if content["kind"] in KUBERAY:
        check_keys(content["spec"], content["kind"])
        templates = list(pod_templates(content))
        assert len(templates) == {"RayCluster": 2, "RayJob": 3}[content["kind"]]
        resources = [
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
            for template in templates
        ]
    else:
        resources = [content]
    for resource in resources:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def check_keys(content, kind):
    """No key that KubeRay does not know, and none missing that it needs."""
    known = KUBERAY[kind]
    assert content.keys() <= known.keys(), (kind, content.keys() - known.keys())
    for key, value in content.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(known[key], str):
                check_keys(inner, known[key])
            else:
                assert isinstance(inner, known[key]), (kind, key)


def test_misspelt_key_is_found():
    (cluster,) = manifests("RayCluster")
    with pytest.raises(AssertionError, match="enableInTreeAutoScaling"):
        check_keys(cluster["spec"] | {"enableInTreeAutoScaling": True}, "RayCluster")
    policy = manifests("NetworkPolicy")[0]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            policy | {"spec": policy["spec"] | {"policyType": ["Ingress"]}},
            kubernetes_validate.latest_version(),
            strict=True,
        )


def test_containers_have_little_power_and_mount_only_what_there_is():
    claims = {claim["metadata"]["name"] for claim in manifests("PersistentVolumeClaim")}
    for template in TEMPLATES:
        spec = template["spec"]
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        for volume in spec.get("volumes", []):
            assert volume.get("persistentVolumeClaim", {"claimName": next(iter(claims))})["claimName"] in claims
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert {"requests", "limits"} <= container["resources"].keys()
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= volumes | {"data"}


def test_secrets_come_from_secrets():
    named = set(re.findall(r"create secret generic (\S+)", (CLUSTER / "kubernetes" / "storage.yaml").read_text()))
    for template in TEMPLATES:
        for container in template["spec"]["containers"]:
            for name, entry in environment(container).items():
                if re.search("PASSWORD|SECRET|TOKEN|KEY", name):
                    assert entry["valueFrom"]["secretKeyRef"]["name"] in named
                assert "@" not in entry.get("value", "") or ":" not in entry["value"].split("//")[1].split("@")[0]


def test_every_pod_is_closed_but_for_what_is_named():
    policies = manifests("NetworkPolicy")
    assert {"podSelector": {}, "policyTypes": ["Ingress"]} in [policy["spec"] for policy in policies]
    opened = {tuple(policy["spec"]["podSelector"].get("matchLabels", {}).items()) for policy in policies} - {()}
    assert opened == {(("app", "ray"),), (("app", "mlflow"),), (("app", "postgres"),)}
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"] and all(source.get("podSelector") for source in rule["from"])


def test_mlflow_asks_for_a_password():
    (mlflow,) = (t["spec"]["containers"][0] for t in TEMPLATES if t["spec"]["containers"][0]["name"] == "mlflow")
    assert mlflow["command"][2:4] == ["--app-name", "basic-auth"]
    (settings,) = manifests("ConfigMap")
    assert "default_permission = NO_PERMISSIONS" in settings["data"]["auth.ini"]


def test_slurm_script_is_sound_and_uses_a_token_of_its_own():
    script = CLUSTER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "RAY_AUTH_MODE=token" in text and "RAY_AUTH_TOKEN_PATH=$(mktemp" in text
    refused = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert refused.returncode == 2 and "usage" in refused.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", [CLUSTER / "slurm.sh", CLUSTER.parent / ".ci" / "run"], ids=lambda path: path.name)
def test_script_passes_shellcheck(script):
    subprocess.run(["shellcheck", str(script)], check=True)


def test_image_runs_as_a_user_with_the_token_on():
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users and users[-1] != "root"
    assert any("RAY_AUTH_MODE=token" in line for line in lines)

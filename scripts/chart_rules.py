"""What every rendered form of the chart has to have; run by scripts/chart."""

import sys

import yaml

# The profile "restricted" of the Pod Security Standards, and what readers of a chart look for first.
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


def check(path: str) -> None:
    with open(path) as file:
        documents = [document for document in yaml.safe_load_all(file) if document]
    kinds = {}
    for document in documents:
        kinds.setdefault(document["kind"], []).append(document)
    assert "Secret" not in kinds, "a secret is never rendered"
    (stateful,) = kinds["StatefulSet"]
    template = stateful["spec"]["template"]
    pod = template["spec"]
    labels = template["metadata"]["labels"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    containers = pod["containers"] + pod.get("initContainers", [])
    for container in containers:
        assert container["securityContext"] == CONFINED, container["name"]
        assert "memory" in container["resources"]["limits"], container["name"]
        for variable in container.get("env", []):
            assert not any(word in variable["name"] for word in ("PASSWORD", "TOKEN", "SECRET", "KEY")), variable

    # Every volume that is mounted is there, every one that is there is mounted, and secrets are not for all.
    named = {volume["name"] for volume in pod["volumes"] or []}
    named |= {claim["metadata"]["name"] for claim in stateful["spec"].get("volumeClaimTemplates", [])}
    mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    assert named == mounted, (named, mounted)
    for volume in pod["volumes"] or []:
        assert "secret" not in volume or volume["secret"]["defaultMode"] == 0o440, volume

    (server,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"api": 8443, "status": 8080}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["port"] == "api" and server[probe]["httpGet"]["scheme"] == "HTTPS"
    assert server["readinessProbe"]["httpGet"]["path"] == "/v1/readyz"

    # What selects pods selects these.
    services = {service["metadata"]["name"]: service for service in kinds["Service"]}
    selectors = [service["spec"]["selector"] for service in services.values()]
    selectors.append(stateful["spec"]["selector"]["matchLabels"])
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in kinds["PodDisruptionBudget"]]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in kinds.get("NetworkPolicy", [])]
    for selector in selectors:
        assert selector and selector.items() <= labels.items(), selector
    assert services[stateful["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
    for service in services.values():
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"])

    replicas = stateful["spec"]["replicas"]
    (budget,) = kinds["PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == (1 if replicas > 1 else 0)
    if replicas > 1:
        assert any(volume.get("secret", {}).get("secretName") for volume in pod["volumes"])
        assert "volumeClaimTemplates" in stateful["spec"], "the checkpoint has to outlive the pod"
    for policy in kinds.get("NetworkPolicy", []):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


for name in sys.argv[1:]:
    try:
        check(name)
    except AssertionError as error:
        sys.exit(f"{name}: {error!r} at {error.__traceback__.tb_next.tb_lineno}")

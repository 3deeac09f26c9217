"""What compose.yaml and the Kubernetes example start: with a key, on this machine alone, as the service wants it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no annotations
import pytest
import yaml  # type: ignore[import-untyped]  # its annotations are a package of their own

from service.config import load_settings
from service.routes import ROUTERS
from service.scopes import SCOPE_OF

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
KUBERNETES = (ROOT / "deploy/kubernetes.yaml").read_text("utf-8")


def environment(prefix: str, given: dict[str, str]) -> dict[str, str]:
    """Variables of a prefix, with what compose puts in for those that are left out."""
    return {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in given.items() if name.startswith(prefix)}


def pod() -> Any:
    """What the example runs."""
    (found,) = (each for each in yaml.safe_load_all(KUBERNETES) if each["kind"] == "StatefulSet")
    return found["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", SERVICES)
def test_compose_publishes_on_loopback_only(name: str) -> None:
    """Whoever wants others to reach a port says so; no service shares the host's network."""
    ports = SERVICES[name].get("ports", [])
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)
    assert SERVICES[name].get("network_mode", "none") == "none"


@pytest.mark.parametrize("name", SERVICES)
def test_compose_runs_everything_without_privileges(name: str) -> None:
    """No capability, a root that is not written, and nothing that brings privileges back."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_starts_the_server_with_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service before it draws one into the data volume; the server takes it from there, and is open to nobody."""
    key, server = SERVICES["key"], SERVICES["acclimate"]
    assert server["depends_on"] == {"key": {"condition": "service_completed_successfully"}}
    assert key["volumes"] == server["volumes"] == ["data:/data"]
    given = environment("ACCLIMATE_", server["environment"])
    file = given["ACCLIMATE_BOOTSTRAP_KEY_FILE"]
    assert f"acclimate keys bootstrap {file} " in key["entrypoint"][-1] + " "
    drawn = tmp_path / "key"
    drawn.write_text("a key of these tests\n")
    for name, value in (given | {"ACCLIMATE_BOOTSTRAP_KEY_FILE": str(drawn)}).items():
        monkeypatch.setenv(name, value)
    settings = load_settings(host="0.0.0.0", data_dir=tmp_path)
    assert settings.bootstrap == "a key of these tests"
    assert settings.metrics_open
    assert not settings.allow_anonymous
    assert not settings.otlp_endpoint


def test_compose_pins_what_it_fetches() -> None:
    """Images of others have a version; ours is built."""
    for name, service in SERVICES.items():
        assert ("build" in service) == (service["image"] == "acclimate"), name
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_compose_mounts_what_the_project_has() -> None:
    """Files at the places that the programs are told of; Prometheus and Grafana are found under their names."""
    mounts = {
        target: ROOT / source
        for service in SERVICES.values()
        for source, target in (volume.split(":")[:2] for volume in service["volumes"])
        if source.startswith("./")
    }
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert {name for name in named if not name.startswith("./")} == set(COMPOSE["volumes"])
    assert all(path.is_dir() for path in mounts.values())
    assert "--config.file=/etc/prometheus/prometheus.yaml" in SERVICES["prometheus"]["command"]
    scraped = yaml.safe_load((mounts["/etc/prometheus"] / "prometheus.yaml").read_text("utf-8"))
    (job,) = scraped["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["acclimate:8000"]}]
    assert all((mounts["/etc/prometheus"] / name).is_file() for name in scraped["rule_files"])
    provisioning = mounts["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/acclimate.yaml").read_text("utf-8"))["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"] + "/")
    assert (mounts[provider["options"]["path"]] / Path(home).name).is_file()


@pytest.mark.parametrize("given", list(yaml.safe_load_all(KUBERNETES)), ids=lambda given: given["kind"])
def test_the_kubernetes_example_is_valid(given: Any) -> None:
    """Against the official schema, which is strict about names."""
    kubernetes_validate.validate(given, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_probes_ask_what_the_service_answers() -> None:
    """Paths that are routes and open to everybody, on the port that the server listens on."""
    (container,) = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    paths = {route.path for router in ROUTERS for route in router.routes if hasattr(route, "path")}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    for probe in probes.values():
        assert probe["path"] in paths
        assert SCOPE_OF[f"GET {probe['path']}"] == "open"
        assert ports[probe["port"]] == 8000


def test_kubernetes_gives_the_server_time_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings of the example are settings, and what they wait for fits into the grace period."""
    (container,) = pod()["containers"]
    key = tmp_path / "key"
    key.write_text("a key of these tests\n")
    for variable in container["env"]:
        file = variable["name"].endswith("_FILE")
        monkeypatch.setenv(variable["name"], str(key) if file else variable["value"])
    settings = load_settings(host="0.0.0.0", data_dir=tmp_path)
    assert settings.drain_seconds + settings.shutdown_grace_seconds + 10 <= pod()["terminationGracePeriodSeconds"]


def test_kubernetes_runs_the_image_s_user_without_privileges() -> None:
    """The same user as the image, a root that is not written, the key readable by the server's group alone."""
    (container,) = pod()["containers"]
    user = re.search(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text("utf-8"))
    assert user is not None
    security = pod()["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (file,) = (each["value"] for each in container["env"] if each["name"] == "ACCLIMATE_BOOTSTRAP_KEY_FILE")
    secret = volumes[mounts[str(Path(file).parent)]]["secret"]
    assert secret["defaultMode"] == 0o440
    assert f"create secret generic {secret['secretName']} --from-literal={Path(file).name}=" in KUBERNETES
    assert mounts["/data"] == "data"


def test_kubernetes_names_this_version() -> None:
    """The tag of the example's image is the project's version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert pod()["containers"][0]["image"].endswith(f"/acclimate:{version}")

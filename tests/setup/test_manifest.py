"""The Kubernetes manifest says what the programs understand, and its parts fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.app import make_app
from gateway.config import PROJECT_ROOT, Config, load
from gateway.service import ResponseService
from gateway.store import ResponseStore
from pascal import main, worker
from workers.settings import WorkerSettings

PATH = PROJECT_ROOT / "docs" / "howto" / "kubernetes.yaml"
TOKEN = "of the secret"


def parts() -> dict[tuple[str, str], Any]:
    documents = list(yaml.safe_load_all(PATH.read_text(encoding="utf-8")))
    return {(part["kind"], part["metadata"]["name"]): part for part in documents}


def pod(part: Any) -> tuple[Any, Any]:
    """The pod's specification and its only container."""
    spec = part["spec"]["template"]["spec"]
    assert part["spec"]["selector"]["matchLabels"] == part["spec"]["template"]["metadata"]["labels"]
    (container,) = spec["containers"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    return spec, container


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(parts()["ConfigMap", "pascal"]["data"]["config.toml"], encoding="utf-8")
    return path


def environment(container: Any, config_path: Path) -> dict[str, str]:
    values = {one["name"]: one.get("value", TOKEN) for one in container["env"]}
    (mount,) = (m["mountPath"] for m in container["volumeMounts"] if m["name"] == "config")
    assert values["PASCAL_CONFIG"] == f"{mount}/config.toml"
    return values | {"PASCAL_CONFIG": str(config_path)}


def test_the_gateway_dials_every_worker_of_the_set(config_path: Path) -> None:
    found = parts()
    workers, service = found["StatefulSet", "pascal-worker"], found["Service", "pascal-worker"]
    spec, container = pod(found["Deployment", "pascal-gateway"])
    config = load(config_path, environment=environment(container, config_path))
    name, service_name = workers["metadata"]["name"], workers["spec"]["serviceName"]
    port = service["spec"]["ports"][0]["port"]
    assert service_name == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert list(config.launcher.addresses) == [
        f"ws://{name}-{index}.{service_name}:{port}" for index in range(workers["spec"]["replicas"])
    ]
    assert spec["terminationGracePeriodSeconds"] > config.server.shutdown_timeout_s
    assert [one["containerPort"] for one in container["ports"]] == [config.server.port]
    assert config.server.state_dir in [m["mountPath"] for m in container["volumeMounts"]]
    assert container["command"] == ["pascal", "serve"]


def test_workers_start_as_they_are_told(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, container = pod(parts()["StatefulSet", "pascal-worker"])
    for name, value in environment(container, config_path).items():
        monkeypatch.setenv(name, value)
    started: list[WorkerSettings] = []

    def run(settings: WorkerSettings) -> int:
        started.append(settings)
        return 0

    monkeypatch.setattr(worker, "become", run)
    program, *arguments = container["command"]
    assert (program, main.main(arguments)) == ("pascal", 0)
    (settings,) = started
    port = container["ports"][0]["containerPort"]
    assert (settings.listen, settings.token) == (f"tcp://0.0.0.0:{port}", TOKEN)
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert (settings.engine, settings.tensor_parallel_size) == ("async", gpus)


def test_no_pod_is_given_variables_that_look_like_settings() -> None:
    """A Service named pascal would set PASCAL_PORT to tcp://..., and others that are unknown."""
    for name in (("StatefulSet", "pascal-worker"), ("Deployment", "pascal-gateway")):
        assert pod(parts()[name])[0]["enableServiceLinks"] is False


async def test_probes_ask_for_routes_that_exist(tmp_path: Path) -> None:
    app = make_app(ResponseService(Config(), ResponseStore(tmp_path / "store.sqlite3")))
    routes = {resource.canonical for resource in app.router.resources()}
    _, container = pod(parts()["Deployment", "pascal-gateway"])
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in routes

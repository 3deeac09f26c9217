"""Alerts and the dashboard ask for what the service exports; Prometheus's own tool reads and tries them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its annotations are a package of their own
from prometheus_client.parser import text_string_to_metric_families

from tests.service.http_case import run_async, serving
from tests.service.test_metrics import work

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/acclimate.json").read_text("utf-8"))
GIVEN_BY_PROMETHEUS = {"job", "instance", "worker", "tenant"}
"""Labels that come with the scrape, or where there are several workers or tenants."""
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")


def alerts() -> dict[str, str]:
    """Expressions of the alerts, by name."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text("utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> dict[str, list[str]]:
    """Expressions of the dashboard's panels, by title."""
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in DASHBOARD["panels"]}


def concrete(expression: str) -> str:
    """A panel's expression with its variables put in."""
    return expression.replace("$instance", ".*").replace("$__rate_interval", "1m")


def expressions() -> list[str]:
    """All of them, and the dashboard's marks."""
    shown = [each for found in panels().values() for each in found]
    return [*alerts().values(), *shown, *(each["expr"] for each in DASHBOARD["annotations"]["list"])]


async def exported() -> dict[str, dict[str, set[str]]]:
    """What /metrics has after some work: the values of each label of each sample."""
    async with serving() as (client, _):
        await work(client, "s")
        text = (await client.get("/metrics")).text
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


@run_async
async def test_what_is_asked_for_is_exported() -> None:
    """Every metric, and every label and value that is selected or summed by."""
    known = await exported()
    asked = " ".join(map(concrete, expressions()))
    names = set(re.findall(r"\b(?:acclimate|process)_\w+", asked))
    assert names - set(known) == set()
    assert len(names) > 15
    for name, selector in re.findall(r"\b((?:acclimate|process)_\w+)\{(.*?)\}", asked):
        for label, how, value in re.findall(r'(\w+)(=~|!~|!=|=)"(.*?)"', selector):
            if label in GIVEN_BY_PROMETHEUS or label == "code":
                continue
            assert label in known[name], (name, label)
            if how == "=":
                assert value in known[name][label], (name, label, value)
    labels = GIVEN_BY_PROMETHEUS | {label for found in known.values() for label in found}
    summed = {label.strip() for group in re.findall(r"\bby \((.*?)\)", asked) for label in group.split(",")}
    assert summed - labels == set()


@run_async
async def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    """Whatever is counted is shown; an information about the build is none."""
    shown = " ".join(each for found in panels().values() for each in found)
    ours = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in await exported()
        if name.startswith("acclimate_") and not name.endswith(("_info", "_created"))
    }
    assert [name for name in sorted(ours) if name not in shown] == []


def test_panels_have_titles_descriptions_and_places_of_their_own() -> None:
    """No two panels overlap, each says what it shows."""
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & own, panel["title"]
        cells |= own
        assert panel["title"]
        assert panel["description"]
    assert len(panels()) == len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})


def test_each_alert_is_seen_to_fire() -> None:
    """The unit tests have a case that raises it; its annotations say what to do."""
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text("utf-8"))["tests"]
    fired = {tried["alertname"] for case in cases for tried in case["alert_rule_test"] if tried.get("exp_alerts")}
    assert fired == set(alerts())


@promtool
@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yaml"), ("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")],
    ids=" ".join,
)
def test_prometheus_takes_the_files(words: tuple[str, ...]) -> None:
    """Configuration and rules are valid, and the rules' unit tests pass."""
    done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_prometheus_can_read_the_panels(tmp_path: Path) -> None:
    """Each expression of the dashboard is one of Prometheus's language."""
    rules = [{"record": f"panel:{place}", "expr": concrete(each)} for place, each in enumerate(expressions())]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

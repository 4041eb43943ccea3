"""The dashboard and the alert rules against the metrics of a gate that runs, and against the real
Prometheus: no query asks for a name or a label that there is not."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from gate import flightmetrics, metrics
from gate.dns import MailRoute
from gate.reason import Reason
from tests.api.ground import BEARER
from tests.ports import free_port
from tests.test_server import HOST, config, serving

ROOT: Final = Path(__file__).parents[1]
DASHBOARD: Final = json.loads((ROOT / "examples/grafana/signup-gate.json").read_text("utf-8"))
RULES_FILE: Final = ROOT / "examples/prometheus/signup-gate.yml"
RULES: Final = yaml.safe_load(RULES_FILE.read_text("utf-8"))["groups"][0]["rules"]
PROMETHEUS: Final = ROOT / ".cache" / "prometheus"

PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES: Final = {
    **{
        f"{panel['title']}, {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    },
    **{rule["alert"]: rule["expr"] for rule in RULES},
}
EMAILS: Final = (
    "jane@inbox.test",
    "nobody@inbox.test",
    "anyone@catchall.test",
    "jane@servfail.test",
    "jane@nxdomain.test",
    "deferred@inbox.test",
    "anybody@blocked.test",
    "jane@closed.test",
    "jane@secure.test",
)


# -- a small reader of PromQL ----------------------------------------------------------------------

TOKEN: Final = re.compile(
    r"""\s*(?:(?P<string>"[^"]*")|(?P<range>\[[^\]]+\])|(?P<number>[0-9.]+)
    |(?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<mark>=~|!~|!=|==|>=|<=|[-+*/<>=(){},]))""",
    re.VERBOSE,
)
FUNCTIONS: Final = {"sum", "max", "min", "rate", "increase", "max_over_time", "histogram_quantile"}


@dataclass(slots=True)
class Asked:
    """What a query asks for: matchers by metric, labels it groups by, functions it calls."""

    metrics: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    functions: list[str] = field(default_factory=list)


def tokens(query: str) -> list[str]:
    found, at = [], 0
    while at < len(query.rstrip()):
        match = TOKEN.match(query, at)
        assert match, query[at:]
        found.append(match.group().strip())
        at = match.end()
    return found


def asked(query: str) -> Asked:
    found, words = Asked(), tokens(query)
    at = 0
    while at < len(words):
        word, behind = words[at], words[at + 1] if at + 1 < len(words) else ""
        at += 1
        if not re.fullmatch(r"[a-zA-Z_:]\w*", word):
            continue
        if word == "by":
            end = words.index(")", at)
            found.labels |= set(words[at + 1 : end]) - {","}
            at = end + 1
        elif behind == "(" or behind == "by":
            found.functions.append(word)
        else:
            matchers = found.metrics.setdefault(word, [])
            if behind == "{":
                end = words.index("}", at)
                inner = words[at + 1 : end]
                matchers += [(inner[i], inner[i + 2].strip('"')) for i in range(0, len(inner), 4)]
                at = end + 1
    return found


@pytest.mark.parametrize(
    ("query", "names", "labels"),
    [
        ('sum by (le, a) (rate(x_bucket{job="j", b=~"c|d"}[5m])) > 0.3', {"x_bucket"}, {"le", "a"}),
        ("max(up) / min (down_total)", {"up", "down_total"}, set()),
    ],
)
def test_queries_are_read(query: str, names: set[str], labels: set[str]) -> None:
    found = asked(query)
    assert (set(found.metrics), found.labels) == (names, labels)


# -- what there is ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Known:
    """The metrics of a gate: values by label, by sample name."""

    values: dict[str, dict[str, set[str]]]
    text: str


@contextmanager
def running() -> Iterator[tuple[int, str]]:
    """A gate's public and admin port, when it has answered a few checks."""
    port = free_port()
    with serving(config(server={"admin_port": port})) as bound:
        with httpx.Client(base_url=f"http://{HOST}:{bound.port}", headers=BEARER) as client:
            for email in EMAILS:
                body = {"email": email, "timeout_ms": 3000}
                assert client.post("/v1/check", json=body).status_code == 200
        admin = f"{HOST}:{port}"
        deadline = time.monotonic() + 5
        while 'result="unknown"' not in scrape(admin):  # decisions are counted with their lines
            assert time.monotonic() < deadline
        yield bound.port, admin


def scrape(admin: str) -> str:
    return httpx.get(f"http://{admin}/metrics").text


@pytest.fixture(scope="module")
def known() -> Known:
    with running() as (_, admin):
        text = scrape(admin)
    values: dict[str, dict[str, set[str]]] = {"up": {}}
    for name, collector in vars(metrics).items():
        if name.isupper() and hasattr(collector, "_labelnames"):
            kind = "_total" if collector._type == "counter" else ""
            values[collector._name + kind] = {label: set() for label in collector._labelnames}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = values.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return Known(values, text)


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_asks_for_what_there_is(name: str, known: Known) -> None:
    query = asked(QUERIES[name])
    assert query.metrics and set(query.functions) <= FUNCTIONS
    everywhere = {"job", "instance"}
    grouped = set(everywhere)
    for metric, matchers in query.metrics.items():
        assert metric in known.values, f"there is no {metric}"
        labels = known.values[metric]
        grouped |= set(labels)
        assert "job" in dict(matchers), "of one job only"
        for label, wanted in matchers:
            if label in everywhere:
                continue
            assert label in labels, f"{metric} has no label {label}"
            assert set(wanted.split("|")) <= labels[label], f"{metric}: {label} is never {wanted}"
    assert query.labels <= grouped
    if "histogram_quantile" in query.functions:
        assert "le" in query.labels
        assert all(metric.endswith("_bucket") for metric in query.metrics)
    elif any(metric.endswith("_bucket") for metric in query.metrics):
        assert all("le" in dict(m) for n, m in query.metrics.items() if n.endswith("_bucket"))


def test_legends_name_labels_that_the_query_leaves() -> None:
    wrong = [
        (panel["title"], target["legendFormat"])
        for panel in PANELS
        for target in panel["targets"]
        if set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - asked(target["expr"]).labels
    ]
    assert not wrong


def test_every_metric_is_to_be_seen_somewhere(known: Known) -> None:
    used = {name for query in QUERIES.values() for name in asked(query).metrics}
    families = set(re.findall(r"# TYPE (gate_\S+)", known.text))
    hidden = [
        family
        for family in families
        if not family.endswith("_created")
        and not {family, f"{family}_total", f"{family}_bucket"} & used
    ]
    assert not hidden


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in PANELS]
    assert len(titles) == len(set(titles))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        box = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(box["x"], box["x"] + box["w"])
            for y in range(box["y"], box["y"] + box["h"])
        }
        assert not cells & taken and box["x"] + box["w"] <= 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        assert all(target["legendFormat"] for target in panel["targets"])
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval"}
    assert used == names


def test_alerts_say_what_to_do_and_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "warning", "info")
        assert rule["annotations"]["summary"]
    readme = (ROOT / "README.md").read_text("utf-8")
    for word in set(re.findall(r"`(gate [a-z]+)", RULES_FILE.read_text("utf-8"))):
        assert f"`{word}" in readme


# -- cardinality (J3) ------------------------------------------------------------------------------


def test_whatever_strangers_choose_adds_no_series() -> None:
    chance = random.Random(7)
    before = len(metrics.render().splitlines())
    flights, sessions = flightmetrics.FlightCounts(), flightmetrics.SessionCounts()
    for number in range(100_000):
        name = f"{chance.getrandbits(64):x}.d{number}.test"
        flightmetrics.BLOCKS.add(name)
        flightmetrics.THROTTLE_REFUSED.add(name)
        flightmetrics.PROBES.add(name)
        if number % 100 == 0:
            failure = chance.choice([None, *Reason])
            flights.routed(0.1, MailRoute(name, (), False, False, failure, name, 0.0, 0.0, (name,)))
            sessions.took("connect", chance.random())
    assert len(metrics.render().splitlines()) == before
    assert b".test" not in metrics.render()


def test_counting_costs_next_to_nothing() -> None:
    """A hundred thousand counts in much less than a microsecond's worth of checks each."""
    times = flightmetrics.STAGE_SECONDS.by["dns"]
    begun = time.thread_time()
    for _ in range(100_000):
        times.observe(0.03)
        flightmetrics.BLOCKS.add("nobody")
    assert (time.thread_time() - begun) / 100_000 < 10e-6


# -- the real Prometheus ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools() -> Path:
    """Skip without it; fail where scripts/metrics-packages has to have run."""
    if not (PROMETHEUS / "promtool").exists():
        said = "there is no promtool: run scripts/metrics-packages"
        if os.environ.get("CI") == "true":
            pytest.fail(said, pytrace=False)
        pytest.skip(said)
    return PROMETHEUS


def promtool(tools: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [tools / "promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=15
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_rules_and_the_configuration(tools: Path) -> None:
    assert f"{len(RULES)} rules found" in promtool(tools, "check", "rules", str(RULES_FILE))
    promtool(tools, "check", "config", str(ROOT / "examples/prometheus/prometheus.yml"))


def test_promtool_finds_the_metrics_tidy(tools: Path, known: Known) -> None:
    promtool(tools, "check", "metrics", stdin=known.text)


SERIES: Final = {
    'gate_probing{state="blocked"}': "0x4 1x10",
    'gate_probing{state="on"}': "1x4 0x10",
    'gate_blocks_total{provider="x"}': "0+4x60",
    'gate_sessions_total{ending="finished"}': "0+100x60",
    'gate_routes_total{outcome="found"}': "0+50x60",
    'gate_routes_total{outcome="dns_error"}': "0+1x60",
    'gate_queue_late_seconds{kind="webhook"}': "2000x60",
    'gate_store_healthy{x="y"}': "1x60",
}
GOES_OFF: Final[tuple[tuple[int, str, dict[str, str] | None, dict[str, str]], ...]] = (
    # minute, alert, the labels it comes with (None: it does not), and what stands for {{ … }}
    (3, "GateProbingStopped", None, {}),
    (8, "GateProbingStopped", {"severity": "page", "state": "blocked"}, {"state": "blocked"}),
    (10, "GateQueueLate", None, {}),
    (
        20,
        "GateQueueLate",
        {"severity": "warning", "kind": "webhook"},
        {"kind": "webhook", "value": "33m 20s"},
    ),
    (50, "GateDnsErrors", None, {}),
    (50, "GateRefusedByMailServers", {"severity": "warning"}, {"value": "4%"}),
    (50, "GateStoreFailing", None, {}),
)


def test_alerts_go_off_when_they_should(tools: Path, tmp_path: Path) -> None:
    notes = {rule["alert"]: rule["annotations"] for rule in RULES}
    own = 'job="signup-gate", instance="a", '
    cases = []
    for minute, alert, labels, words in GOES_OFF:
        text = json.dumps(notes[alert])
        for word, value in words.items():
            text = re.sub(rf"{{{{[^}}]*{word}[^}}]*}}}}", value, text)
        expected = {"exp_labels": {"instance": "a", **(labels or {})}}
        expected["exp_annotations"] = json.loads(text)
        found = [expected] if labels is not None else []
        cases.append({"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": found})
    tree = {
        "rule_files": [str(RULES_FILE)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name.replace("{", "{" + own), "values": values}
                    for name, values in SERIES.items()
                ],
                "alert_rule_test": cases,
            }
        ],
    }
    path = tmp_path / "alerts.yml"
    path.write_text(yaml.safe_dump(tree))
    promtool(tools, "test", "rules", str(path))


def answered(port: int, queries: Sequence[str]) -> dict[str, Any]:
    found = {}
    with httpx.Client(base_url=f"http://{HOST}:{port}") as client:
        for query in queries:
            text = query.replace("$__rate_interval", "10s").replace("$job", "signup-gate")
            answer = client.get("/api/v1/query", params={"query": text}).json()
            assert answer["status"] == "success", f"{query}: {answer}"
            found[query] = answer["data"]["result"]
    return found


QUIET: Final = {
    # Counters that are not there before somebody calls a hook, fails at something, or is late.
    "gate_hooks_total",
    "gate_problems_total",
    "gate_throttled_total",
    "gate_siteverify_total",
    "gate_egress_blocked_total",
    "gate_http_cut_total",
    "gate_rechecks_total",
    "gate_webhooks_total",
    "gate_observed_blocks_total",
    "gate_log_lines_lost_total",
}


@pytest.mark.timeout(60)
def test_prometheus_answers_every_query_of_the_dashboard(tools: Path, tmp_path: Path) -> None:
    port = free_port()
    with running() as (_, admin):
        job = {"job_name": "signup-gate", "static_configs": [{"targets": [admin]}]}
        tree = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
            "rule_files": [str(RULES_FILE)],
            "scrape_configs": [job],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(tree))
        process = subprocess.Popen(
            [
                tools / "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={HOST}:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            asyncio.run(scraped(port))
            found = answered(port, list(QUERIES.values()))
        finally:
            process.terminate()
            process.wait(10)
    alerts = {rule["expr"] for rule in RULES}
    empty = [
        query
        for query, result in found.items()
        if query not in alerts and not result and not set(asked(query).metrics) & QUIET
    ]
    assert not empty


async def scraped(port: int) -> None:
    """Wait until the gate was scraped three times."""
    async with asyncio.timeout(30), httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client:
        query = {"query": 'count_over_time(up{job="signup-gate"}[1m])'}
        while True:
            try:
                result = (await client.get("/api/v1/query", params=query)).json()["data"]["result"]
                if result and int(result[0]["value"][1]) >= 3:
                    return
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            await asyncio.sleep(0.2)

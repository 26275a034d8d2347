"""What /metrics tells: names, labels and values, as documented; and how it is counted."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, get_args
from unittest.mock import Mock, create_autospec

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serial_console import control, errors, metrics
from serial_console.config import Config, Limits
from serial_console.control import ClientInfo, SessionInfo
from serial_console.sessions import Relay, Session, SessionTable
from serial_console.tally import Tally

from .. import fakes
from .rest import Rest, problem

DOCS = pathlib.Path(__file__).parents[2] / "docs"
Sample = tuple[str, tuple[tuple[str, str], ...]]


def families(text: str) -> dict[str, Any]:
    return {one.name: one for one in text_string_to_metric_families(text)}


def samples(text: str) -> dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(text).values()
        for sample in family.samples
    }


def scraped(rest: Rest) -> str:
    answer = rest.ask("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    return answer.text


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric, as docs/monitoring.md has them."""
    text = (DOCS / "monitoring.md").read_text("utf-8")
    rows = re.findall(r"^\| `(serial_console_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_every_metric_is_documented_and_every_documented_one_is_there(rest: Rest) -> None:
    found = {}
    for family in families(scraped(rest)).values():
        labels = {label for sample in family.samples for label in sample.labels}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.documentation, name
        found[name] = (family.type, labels)
    assert found == documented()


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\bserial_console_\w+", query))


def queries() -> list[str]:
    dashboard = json.loads((DOCS / "monitoring/grafana.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [one["query"] for one in dashboard["templating"]["list"]]
    rules = yaml.safe_load((DOCS / "monitoring/alerts.yml").read_text("utf-8"))
    return asked + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_dashboard_and_alerts_ask_for_what_there_is(rest: Rest) -> None:
    there = {name for name, _ in samples(scraped(rest))}
    codes = {*errors.CODES, *(str(int(one)) for one in errors.CloseCode)}
    for query in queries():
        assert names_in(query) <= there, query
        assert set(re.findall(r'code="(\w+)"', query)) <= codes, query
        assert query.count("(") == query.count(")"), query
    shown = set().union(*(names_in(query) for query in queries()))
    assert {re.sub(r"_bucket$", "", name) for name in shown} == set(documented())


def test_the_scrape_configuration_of_the_document(rest: Rest) -> None:
    text = (DOCS / "monitoring.md").read_text("utf-8")
    block = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block
    (job,) = yaml.safe_load(block[1])["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [Config().api.listen]
    assert any(f'up{{job="{job["job_name"]}"}}' in query for query in queries())


def test_the_values_are_the_supervisor_s(rest: Rest) -> None:
    found = samples(scraped(rest))

    def value(name: str, **labels: str) -> float:
        return found[f"serial_console_{name}", tuple(sorted(labels.items()))]

    plain = {
        "up": 1, "start_time_seconds": fakes.OPENED_AT, "libvirt_up": 1, "guests": 3, "relays": 2,
        "relay_memory_bytes": 4_194_304, "relay_cpu_seconds_total": 24.5,
        "sessions_resumed_total": 4, "tokens_issued_total": 20, "tokens_redeemed_total": 19,
        "input_bytes_total": 21, "output_bytes_total": 22, "skipped_bytes_total": 23,
        "held_input_bytes": 17, "libvirt_reconnects_total": 25,
        "session_setup_seconds_count": 4, "session_setup_seconds_sum": 12.5,
    }  # fmt: skip
    assert {name: value(name) for name in plain} == plain
    assert value("sessions", mode="rw", state="waiting") == 2
    assert value("sessions", mode="ro", state="connected") == 5
    assert value("sessions_opened_total", mode="ro") == 9
    assert value("sessions_ended_total", code="4412") == 11
    assert value("sessions_refused_total", code="in_use") == 7
    assert value("tokens_refused_total", code="no_such_guest") == 6
    assert value("build_info", component="supervisor", version="0") == 1
    buckets = [value("session_setup_seconds_bucket", le=le) for le in ("0.01", "0.025", "10.0")]
    assert buckets == [1, 3, 3]
    assert value("session_setup_seconds_bucket", le="+Inf") == 4
    # A counter is there before it first counts, else its first increase is none.
    assert value("sessions_refused_total", code="limit_reached") == 0
    assert value("sessions", mode="ro", state="detached") == 0


def test_labels_do_not_grow_with_what_guests_and_users_choose(rest: Rest) -> None:
    before = set(samples(scraped(rest)))
    rest.supervisor.guests = [fakes.guest(f"g{number}") for number in range(50)]
    rest.supervisor.sessions = [fakes.session(one["name"], one) for one in rest.supervisor.guests]
    assert set(samples(scraped(rest))) == before
    assert len(before) < 150


def test_a_guest_count_that_nobody_knows_is_left_out(rest: Rest) -> None:
    rest.supervisor.totals.guests = None
    assert "serial_console_guests" not in scraped(rest)


@pytest.mark.parametrize("raw", [b'{"v":1,"ok":true,"version":7}\n', b""])
def test_without_a_supervisor_that_is_understood_there_is_still_a_scrape(
    rest: Rest, raw: bytes
) -> None:
    rest.supervisor.raw = raw
    found = samples(scraped(rest))
    assert found["serial_console_up", ()] == 0
    assert {name for name, _ in found} == {"serial_console_up", "serial_console_build_info"}


def test_a_supervisor_with_other_buckets_is_of_another_version(rest: Rest) -> None:
    rest.supervisor.totals.counts.setup = [0, 1]
    assert samples(scraped(rest))["serial_console_up", ()] == 0


def test_who_may_scrape(rest: Rest) -> None:
    problem(rest.ask("GET", "/metrics", key=None), 401, "unauthorized")
    some = rest.key("some", "web-*")
    problem(rest.ask("GET", "/metrics", some), 403, "forbidden")
    assert rest.ask("GET", "/metrics", rest.key("watch", "*", mode="ro")).status_code == 200


def test_a_scrape_is_no_line_of_the_audit_log(rest: Rest) -> None:
    for _ in range(3):
        scraped(rest)
    assert rest.told == []
    rest.ask("GET", "/metrics", rest.key("some", "web-*"))
    assert [one.event for one in rest.told] == ["api_forbidden"]


# ---- counting


def session(relay: Relay, *, adopted: bool = False, mode: control.Mode = "rw") -> Session:
    info = SessionInfo(
        id=f"s{len(relay.sessions)}", guest="web", uuid="u", console="serial0", mode=mode,
        user="", client="", opened_at=0, gateway_pid=1, gateway_uid=0, token_id="t",
    )  # fmt: skip
    made = Session(info, relay, adopted=adopted)
    relay.sessions[info.id] = made
    return made


def figures(one: Session, out: int, cpu: float = 0.0, **more: int) -> ClientInfo:
    return ClientInfo(
        session=one.info.id, state="connected", idle=0, bytes_in=0, bytes_out=out, skipped=0,
        cpu=cpu, **more,
    )  # fmt: skip


def counts(tally: Tally) -> control.Counts:
    table: Mock = create_autospec(SessionTable, instance=True)
    table.all.return_value = []
    return tally.totals({}, table, True, None).counts


def relay(*, adopted: bool = False) -> Relay:
    return Relay("r", "web", "u", "serial0", "/p", ready=True, adopted=adopted)


def test_what_has_ended_stays_counted_and_nothing_counts_twice() -> None:
    tally, which = Tally(), relay()
    first, second = session(which), session(which)
    tally.measured(first, figures(first, 100, cpu=1.0, memory=5000))
    tally.measured(second, figures(second, 10, cpu=1.0))
    tally.measured(first, figures(first, 150, cpu=1.5))
    assert (counts(tally).bytes_out, counts(tally).cpu) == (160, 1.5)
    assert which.memory == 5000  # a session's last words are without it
    tally.measured(first, figures(first, 150, cpu=1.5))
    tally.ended(1000)
    other = session(relay())
    tally.measured(other, figures(other, 1, cpu=0.25))
    assert (counts(tally).bytes_out, counts(tally).cpu) == (161, 1.75)
    assert counts(tally).ended == {"1000": 1}


def test_of_what_is_adopted_counts_what_it_does_from_then_on() -> None:
    tally, which = Tally(), relay(adopted=True)
    old, new = session(which, adopted=True), session(which)
    tally.measured(old, figures(old, 10**9, cpu=500.0))
    tally.measured(new, figures(new, 5, cpu=500.0))
    tally.measured(old, figures(old, 10**9 + 7, cpu=500.5))
    assert (counts(tally).bytes_out, counts(tally).cpu) == (12, 0.5)


def test_sessions_and_their_set_up_time() -> None:
    tally = Tally()
    one = session(relay(), mode="ro")
    one.since -= 0.2
    assert tally.opened(one, again=False) == pytest.approx(0.2, abs=0.04)
    assert tally.opened(one, again=True) == 0.0
    found = counts(tally)
    assert (found.opened, found.resumed, sum(found.setup)) == ({"ro": 1}, 1, 1)
    assert found.setup[control.SETUP_BUCKETS.index(0.25)] == 1
    one.since -= 100
    tally.opened(one, again=False)
    assert counts(tally).setup[-1] == 1


def test_refusals_by_reason() -> None:
    tally = Tally()
    for error in (errors.InUse("x"), errors.InUse("x"), errors.BadToken("x")):
        tally.refused(error)
    tally.not_issued(errors.NoSuchGuest("x"))
    tally.issued()
    tally.redeemed(again=False)
    tally.redeemed(again=True)
    found = counts(tally)
    assert found.refused == {"in_use": 2, "bad_token": 1}
    assert found.not_issued == {"no_such_guest": 1}
    assert (found.issued, found.redeemed) == (1, 1)


def test_what_there_is() -> None:
    tally, table, which = Tally(), SessionTable(Limits()), relay()
    for mode in get_args(control.Mode):
        one = session(which, mode=mode)
        table.add(one)
        tally.measured(one, figures(one, 1, held=3, memory=4096))
    found = tally.totals({"r": which}, table, False, 2)
    assert found.sessions == {"rw": {"connected": 1}, "ro": {"connected": 1}}
    assert (found.relays, found.memory, found.held, found.libvirt, found.guests) == (
        1, 4096, 6, False, 2,
    )  # fmt: skip

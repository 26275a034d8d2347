"""Releases that have to speak with each other, and what a release promises."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, get_args

import pytest

import serial_console
import websockify_tokens
from serial_console import control
from serial_console.errors import BadRequest
from tests.recorded import messages

ROOT = pathlib.Path(__file__).parents[2]
READERS = {
    "supervisor from gateway": control.Decoder(control.Redeeming),
    "supervisor from api": control.Decoder(control.Administering),
    "relay from supervisor": control.Decoder(control.ToRelay, others=True),
    "supervisor from relay": control.Decoder(control.FromRelay, others=True),
    "relay from gateway": control.Decoder(control.FromGateway, others=True),
}
RELEASES = sorted(messages.HERE.glob("v*/messages.jsonl"))


def recorded(path: pathlib.Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.parent.name)
def test_what_a_release_wrote_is_understood(path: pathlib.Path) -> None:
    for one in recorded(path):
        message = READERS[one["to"]].decode(one["line"].encode())
        assert message.__struct_config__.tag == json.loads(one["line"])["op"]


def test_this_release_writes_what_is_recorded_of_it() -> None:
    """Else: a release that is out cannot be changed; python -m tests.recorded.messages."""
    written = [{"to": to, "line": line} for to, lines in messages.lines().items() for line in lines]
    assert recorded(messages.FILE) == written


def test_every_message_is_recorded() -> None:
    there = {(one["to"], json.loads(one["line"])["op"]) for one in recorded(messages.FILE)}
    unions = {
        "supervisor from gateway": (control.Redeem,),
        "supervisor from api": get_args(control.Administering),
        "relay from supervisor": get_args(control.ToRelay),
        "supervisor from relay": get_args(control.FromRelay),
        "relay from gateway": get_args(control.FromGateway),
    }
    assert there == {
        (to, one.__struct_config__.tag) for to, union in unions.items() for one in union
    }


def more(value: Any) -> Any:
    """Return the same with a field of a later release in every object."""
    if isinstance(value, dict):
        return {**{key: more(one) for key, one in value.items()}, "later": 1}
    return [more(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("one", recorded(messages.FILE), ids=lambda one: one["line"][:40])
def test_a_process_passes_over_what_a_later_one_says_and_refuses_what_it_asks(
    one: dict[str, str],
) -> None:
    line = json.dumps(more(json.loads(one["line"]))).encode()
    reader = READERS[one["to"]]
    if one["to"] in ("supervisor from gateway", "supervisor from api"):
        with pytest.raises(BadRequest, match="later"):
            reader.decode(line)
    else:
        assert reader.decode(line) == reader.decode(one["line"].encode())
        assert reader.decode(b'{"v": 1, "op": "of_a_later_release"}') is None


def test_there_is_one_version() -> None:
    assert websockify_tokens.__version__ == serial_console.__version__
    assert (messages.HERE / f"v{serial_console.__version__}").is_dir()


def test_the_changelog_keeps_its_form() -> None:
    """As keepachangelog.com/en/1.1.0 has it."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    releases = re.findall(r"^## \[(.+?)\](?: - (.+))?$", text, re.MULTILINE)
    assert releases[0] == ("Unreleased", "")
    versions = [tuple(map(int, version.split("."))) for version, _ in releases[1:]]
    assert versions == sorted(set(versions), reverse=True)
    for _, date in releases[1:]:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds
    if versions:
        current = tuple(map(int, re.findall(r"\d+", serial_console.__version__)))
        assert current >= versions[0]

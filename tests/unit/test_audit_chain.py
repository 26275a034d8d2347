"""The audit file: what is written, and that no change to it goes unseen."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serial_console import chain, cli, verify
from serial_console.chain import Chain, Head
from serial_console.errors import AuditBroken, SetupError


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "audit.log")


def write(path: str, *events: str, **fields: Any) -> Head:
    """Write events as one supervisor from its start to its end; return where the chain ends."""
    writer = Chain(path)
    for event in events:
        assert writer.append(event, fields) == writer.head
    writer.close()
    return writer.head


def check(*paths: str, written: Head | None = None) -> verify.Check:
    one = verify.Check(written)
    one.run(paths)
    return one


def fault(*paths: str, written: Head | None = None) -> str:
    with pytest.raises(AuditBroken) as broken:
        check(*paths, written=written)
    text = str(broken.value)
    assert "\n" not in text
    return text


def lines(path: str) -> list[bytes]:
    return Path(path).read_bytes().splitlines(keepends=True)


def events(path: str) -> list[str]:
    return [json.loads(line)["event"] for line in lines(path)]


def test_each_line_is_json_and_bound_to_the_one_before(path: str) -> None:
    head = write(path, "one", "two", guest="web\n\x1b[2J\u2028", user="\ud800")
    found = [json.loads(line) for line in lines(path)]
    assert [one["event"] for one in found] == ["log_opened", "one", "two"]
    assert [one["seq"] for one in found] == [1, 2, 3]
    assert [one["prev"] for one in found] == [chain.START, found[0]["hash"], found[1]["hash"]]
    assert found[2]["guest"] == "web\n\x1b[2J\u2028"
    assert head == Head(3, found[2]["hash"])
    assert all(byte == 10 or 32 <= byte < 127 for byte in b"".join(lines(path)))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    good = check(path, written=head)
    assert (good.lines, good.first, good.head, good.notes) == (3, 1, head, [])


def test_the_next_supervisor_goes_on(path: str) -> None:
    write(path, "one")
    head = write(path, "two")
    assert events(path) == ["log_opened", "one", "two"]
    assert check(path).head == head


def _removed(at: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda found: found[:at] + found[at + 1 :]


def _altered(at: int, old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    def change(found: list[bytes]) -> list[bytes]:
        assert old in found[at]
        return [*found[:at], found[at].replace(old, new), *found[at + 1 :]]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_removed(0), ["line 1:", "beginning"]),
        (_removed(2), ["line 3:", "line 3 is missing before it"]),
        (lambda found: [found[0], *found[3:]], ["line 2:", "lines 2 to 3 are missing"]),
        (lambda found: [*found[:2], found[3], found[2], *found[4:]], ["line 3:", "line 3 is miss"]),
        (lambda found: [*found[:3], found[1], *found[3:]], ["line 4:", "moved, added or copied"]),
        (lambda found: [*found, found[-1]], ["line 6:", "moved, added or copied"]),
        (lambda found: [*found[:2], b"{}\n", *found[2:]], ["line 3:", "altered, or added"]),
        (lambda found: [*found[:2], b"x" * 40000 + b"\n", *found[2:]], ["line 3:", "altered"]),
        (lambda found: [*found[:2], b"\n", *found[2:]], ["line 3:", "altered, or added"]),
        (_altered(0, b"log_opened", b"log_opener"), ["line 1:", "altered"]),
        (_altered(2, b"alice", b"mallo"), ["line 3:", "altered"]),
        (_altered(2, b'"time"', b' "time"'), ["line 3:", "altered"]),
        (_altered(4, b"alice", b"mallo"), ["line 5:", "half a line at the end"]),
        (lambda found: [*found[:4], found[4][:-1]], ["line 5:", "half a line at the end"]),
        (lambda found: [*found[:4], found[4][:-9]], ["line 5:", "half a line at the end"]),
        (lambda _: [], ["empty"]),
    ],
)
def test_what_was_done_to_the_file_is_found(
    path: str, change: Callable[[list[bytes]], list[bytes]], words: list[str]
) -> None:
    write(path, "one", "two", "three", "four", user="alice")
    Path(path).write_bytes(b"".join(change(lines(path))))
    text = fault(path)
    assert text.startswith(path)
    for word in words:
        assert word in text


def test_a_line_that_was_made_again_does_not_fit(path: str) -> None:
    write(path, "one", "two", "three", user="alice")
    found = lines(path)
    before = json.loads(found[1])
    forged, _ = chain._line("two", {"user": "mallory"}, Head(2, before["hash"]))
    Path(path).write_bytes(b"".join([*found[:2], forged + b"\n", *found[3:]]))
    assert "line 4: it does not follow" in fault(path)


def test_what_only_the_running_supervisor_knows(path: str) -> None:
    head = write(path, "one", "two", "three")
    found = lines(path)
    Path(path).write_bytes(b"".join(found[:2]))  # by itself a good log
    check(path)
    assert "lines 3 to 4 are missing at the end" in fault(path, written=head)
    os.unlink(path)
    write(path, "one", "two", "other")  # made anew from the beginning
    check(path)
    assert "line 4: not what the running supervisor wrote" in fault(path, written=head)


def test_a_tail_cut_off_under_a_running_supervisor_shows_at_its_next_line(path: str) -> None:
    writer = Chain(path)
    for event in ("one", "two", "three"):
        writer.append(event, {})
    Path(path).write_bytes(b"".join(lines(path)[:2]))
    check(path)
    writer.append("four", {})
    writer.close()
    assert "line 3: lines 3 to 4 are missing before it" in fault(path)


# ---- rotation


def test_a_renamed_file_is_followed_by_a_new_one_that_names_it(path: str) -> None:
    writer = Chain(path)
    writer.append("one", {})
    os.rename(path, path + ".1")
    writer.append("two", {})
    os.rename(path, path + ".0")
    Path(path).touch(mode=0o640)  # logrotate's create
    writer.append("three", {})
    writer.close()
    assert [events(name) for name in (path + ".1", path + ".0", path)] == [
        ["log_opened", "one"],
        ["log_opened", "two"],
        ["log_opened", "three"],
    ]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert check(path + ".1", path + ".0", path).lines == 6
    alone = check(path)
    assert (alone.first, alone.lines) == (5, 2)
    assert "lines 3 to 4 are missing" in fault(path + ".1", path)
    assert "number 3, where 7 should be" in fault(path, path + ".0")


def test_copy_and_truncate_is_followed_too(path: str) -> None:
    writer = Chain(path)
    writer.append("one", {})
    Path(path + ".1").write_bytes(Path(path).read_bytes())
    os.truncate(path, 0)
    writer.append("two", {})
    writer.close()
    assert check(path + ".1", path).lines == 4


def test_a_rotation_while_no_supervisor_runs(path: str) -> None:
    head = write(path, "one")
    os.rename(path, path + ".1")
    write(path, "two")
    assert json.loads(lines(path)[0])["prev"] == head.hash
    assert check(path + ".1", path).lines == 4
    os.unlink(path + ".1")
    os.rename(path, path + ".2")
    write(path, "three")
    assert "line 1: another log begins" in fault(path + ".2", path)


def test_where_no_new_file_can_be_made_the_old_one_goes_on(
    path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Chain(path)
    writer.append("one", {})
    os.rename(path, path + ".1")
    os.mkdir(path)
    writer.append("two", {})
    writer.append("three", {})
    writer.close()
    assert events(path + ".1") == ["log_opened", "one", "two", "three"]
    assert "cannot write the audit log" in caplog.text


# ---- crashes and full disks


@pytest.mark.parametrize("cut", [2, 20, 100, 200])
def test_half_a_line_of_a_crash_is_told_and_breaks_nothing(path: str, cut: int) -> None:
    write(path, "one", "two", user="x" * 200)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:-cut])
    assert "line 3: half a line at the end" in fault(path)
    write(path, "three")
    good = check(path)
    (note,) = good.notes
    assert "line 3: half a line" in note
    resumed = json.loads(lines(path)[3])
    assert (resumed["event"], resumed["seq"]) == ("log_resumed", 3)
    assert resumed["torn"] == len(data.splitlines()[2]) + 1 - cut
    head = write(path, "four")
    assert check(path).head == head
    found = lines(path)
    Path(path).write_bytes(b"".join([*found[:2], found[2][3:], *found[3:]]))
    assert "line 3: it was altered" in fault(path)


def test_a_line_that_lacks_nothing_but_its_end(path: str) -> None:
    write(path, "one")
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    assert "half a line at the end" in fault(path)
    write(path, "two")
    assert events(path) == ["log_opened", "one", "log_resumed", "two"]
    assert check(path).notes == []


def test_half_of_the_very_first_line(path: str) -> None:
    Path(path).write_bytes(b'{"seq":1,"pr')
    os.chmod(path, 0o600)
    write(path, "one")
    assert events_after_torn(path) == ["log_resumed", "one"]
    assert len(check(path).notes) == 1


def events_after_torn(path: str) -> list[str]:
    return [json.loads(line)["event"] for line in lines(path)[1:]]


@pytest.fixture
def file_size() -> Iterator[Callable[[int], None]]:
    """Set RLIMIT_FSIZE, which cuts a write short just as a full disk does."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("room", [0, 1, 60, 250, 251, 252, 300])
def test_a_full_disk_costs_events_that_are_counted(
    path: str, room: int, file_size: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    writer = Chain(path)
    writer.append("one", {})
    size = os.path.getsize(path)
    file_size(size + room)
    done = [writer.append("lost", {}) for _ in range(3)]
    assert caplog.text.count("cannot be written") == 1
    file_size(size + 100_000)
    assert writer.append("two", {}) == writer.head
    writer.close()
    good = check(path, written=writer.head)
    lost = done.count(None)
    assert f"{lost} events before it could not be written" in " ".join(good.notes)
    told = [
        json.loads(line) for line in lines(path) if b"log_resumed" in line and line[-2:] == b"}\n"
    ]
    assert told[-1]["lost"] == lost
    assert write(path, "three") == check(path).head


def test_a_full_disk_that_fills_again_in_what_tells_of_it(
    path: str, file_size: Callable[[int], None]
) -> None:
    writer = Chain(path)
    writer.append("one", {})
    size = os.path.getsize(path)
    for room in range(0, 900, 7):
        file_size(size + room)
        writer.append("lost", {})
    file_size(1 << 20)
    writer.append("two", {})
    writer.close()
    good = check(path, written=writer.head)
    counted = sum(int(note.split(": ")[1].split()[0]) for note in good.notes if "events" in note)
    wrote = sum(b'"event":"lost"' in line for line in lines(path) if chain.parsed(line[:-1]))
    assert counted + wrote == len(range(0, 900, 7))


# ---- places that do not do


def test_a_file_that_others_may_write_is_refused(path: str) -> None:
    Path(path).touch()
    os.chmod(path, 0o660)
    with pytest.raises(SetupError, match=r"0660.*chmod 640"):
        Chain(path)


@pytest.mark.parametrize("what", ["directory", "fifo", "link", "nowhere"])
def test_what_is_no_file(path: str, tmp_path: Path, what: str) -> None:
    if what == "directory":
        os.mkdir(path)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "link":
        os.symlink("/dev/null", path)
    else:
        path = str(tmp_path / "not" / "there")
    with pytest.raises(SetupError) as error:
        Chain(path)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_two_writers_are_one_too_many(path: str) -> None:
    writer = Chain(path)
    writer.append("one", {})
    code = (
        "import sys\nfrom serial_console.chain import Chain\nfrom serial_console.errors import *\n"
        "try: Chain(sys.argv[1])\nexcept SetupError as error: print(error)"
    )
    other = [sys.executable, "-c", code, path]
    said = subprocess.run(other, capture_output=True, text=True, check=True).stdout
    assert "another supervisor's" in said
    if os.fork() == 0:
        os._exit(0)  # a relay that ends takes no lock away
    os.wait()
    assert "another supervisor's" in subprocess.run(other, capture_output=True, text=True).stdout
    writer.close()
    assert subprocess.run(other, capture_output=True, text=True).stdout == ""


def test_what_a_forged_file_says_does_nothing_to_the_terminal(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its chain may be right: who could write the file could make all of it anew."""
    write(path, "first")
    writer = Chain(path)
    writer.append("log_resumed", {"lost": "\x1b[2Jall is well"})
    writer.close()
    config = tmp_path / "config.toml"
    config.write_text("")
    assert cli.main(["--config", str(config), "audit", "verify", path]) == 0
    out, _ = capsys.readouterr()
    assert "all is well" in out
    assert "\x1b" not in out
    missing = str(tmp_path / "\x1b[2J")
    assert cli.main(["--config", str(config), "audit", "verify", missing]) == 1
    assert "\x1b" not in capsys.readouterr().err

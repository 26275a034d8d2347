"""The soak's model finds what it is there to find: streams that are no copies of the log."""

import random

import pytest

from tests.faults.soak_truth import MismatchError, Truth

PRINTED = random.Random(1).randbytes(300000).replace(b"\x1b", b"\r\n")


def notice(text):
    return b"\r\n\x1b[2m[" + text + b"]\x1b[22m\r\n"


LOST = notice(b"The connection to libvirt on the host is lost; trying again.")


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(PRINTED)
    return Truth(str(path))


def gap(count):
    return notice(b"%d bytes of output skipped" % count)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        PRINTED[70000:90000],
        PRINTED[70000:90000] + gap(5000) + PRINTED[95000:99000],
        PRINTED[70000:90000] + notice(b"The guest is paused.") + PRINTED[90000:99000],
        PRINTED[70000:90000] + LOST + PRINTED[150000:160000],
        PRINTED[70000:90000] + LOST + PRINTED[90000:91000] + PRINTED[150000:250000],
        PRINTED[70000:90000] + b"\r\n\x1b[2m[The oper",
        PRINTED[70000:90000] + b"\r\n\x1b",
        PRINTED[100:2000] + PRINTED[70000:290000],
        b"\x1b[!p" + PRINTED[10:60000] + PRINTED[80000:90000],
    ],
    ids=lambda stream: str(len(stream)),
)
def test_copies_are_found(truth, stream):
    truth.check(stream, 0, away=False)


@pytest.mark.parametrize(
    "stream",
    [
        PRINTED[70000:150000] + PRINTED[150001:160000],
        PRINTED[70000:150000] + PRINTED[149999:160000],
        PRINTED[70000:150000] + b"?" + PRINTED[150000:160000],
        PRINTED[70000:90000] + gap(5001) + PRINTED[95000:99000],
        PRINTED[70000:90000] + gap(4900) + PRINTED[95000:99000],
        PRINTED[70000:90000] + gap(5100) + PRINTED[95000:99000],
        PRINTED[70000:90000] + notice(b"The guest is paused.") + PRINTED[90500:99000],
        PRINTED[70000:90000] + LOST + PRINTED[60000:70000] + PRINTED[50000:60000],
        PRINTED[150000:160000] + LOST + PRINTED[70000:150000],
    ],
)
def test_what_is_no_copy_is_found(truth, stream):
    with pytest.raises(MismatchError):
        truth.check(stream, 0, away=False)


def test_what_qemu_drops_while_it_does_not_see_its_pty_open_is_no_loss_of_ours(truth):
    stream = PRINTED[70000:120000] + PRINTED[127000:140000] + PRINTED[140500:200000]
    truth.check(stream, 0, away=False, opened=lambda at: 70000 - at)
    with pytest.raises(MismatchError):
        truth.check(stream, 0, away=False, opened=lambda at: 60000 - at)
    with pytest.raises(MismatchError):
        truth.check(stream + LOST + stream, 0, away=False, opened=lambda at: 70000 - at)


def test_a_byte_that_qemu_logged_twice_is_no_loss(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(PRINTED[:80000] + PRINTED[79999:80000] * 3 + PRINTED[80000:])
    Truth(str(path)).check(PRINTED[70000:90000], 0, away=False)


def test_what_is_counted(truth):
    verdict = truth.check(PRINTED[:20000] + gap(500) + PRINTED[20500:30000], 0, away=False)
    assert (verdict.checked, verdict.gaps, verdict.skipped) == (29500, 1, 500)

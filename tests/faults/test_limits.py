"""Each limit of the configuration at its boundary: the last one is let in, the next is refused with
4429 and keeps its token, and is let in when one has left. Adopted sessions count too."""

import contextlib
import signal
import time

import pytest

from tests import rig

TTL = 120


@pytest.fixture
def guests(make_guest):
    """Three guests that are off: a session waits for their start."""
    return [make_guest(state="off").uuid for _ in range(3)]


def assert_refused(stack, token, *words):
    with stack.connect(token) as refused:
        code, reason = refused.ended()
        assert code == 4429
        for word in words:
            assert word in reason


def waiting(stack, count):
    return stack.wait_sessions(*count * ["waiting"])


def restart(stack):
    """The supervisor is killed; the next one adopts the sessions."""
    stack.end("supervisor", signal.SIGKILL)
    stack.start("supervisor")


def test_sessions_in_all(make_stack, guests):
    stack = make_stack("supervisor", "gateway", limits={"sessions": 2})
    with stack.open(guests[0]) as first, stack.open(guests[1]):
        waiting(stack, 2)
        token = stack.token(guests[2], ttl=TTL)
        assert_refused(stack, token, "All 2 sessions")
        restart(stack)
        waiting(stack, 2)
        assert_refused(stack, stack.token(guests[2]), "All 2 sessions")
        first.close()
        waiting(stack, 1)
        with stack.open(guests[2]):
            waiting(stack, 2)
    stack.wait_free()


def test_sessions_of_a_user(make_stack, guests):
    stack = make_stack("supervisor", "gateway", limits={"per_user": 2})
    with stack.open(guests[0], user="alice") as first, stack.open(guests[1], user="alice"):
        waiting(stack, 2)
        token = stack.token(guests[2], user="alice", ttl=TTL)
        assert_refused(stack, token, "2 sessions a user", "close one")
        with stack.open(guests[2], user="bob"):
            waiting(stack, 3)
        waiting(stack, 2)
        with stack.open(guests[2]), stack.open(guests[2], mode="ro"):  # of nobody known
            waiting(stack, 4)
        waiting(stack, 2)
        first.close()
        waiting(stack, 1)
        with stack.connect(token):
            waiting(stack, 2)
            restart(stack)
            waiting(stack, 2)
            assert_refused(stack, stack.token(guests[0], user="alice"), "2 sessions a user")
    stack.wait_free()


def test_watchers_of_a_guest(make_stack, guests):
    stack = make_stack("supervisor", "gateway", limits={"watchers": 2})

    def watch(guest):
        return stack.token(guest, mode="ro", ttl=TTL)

    with contextlib.ExitStack() as opened:
        first = opened.enter_context(stack.connect(watch(guests[0])))
        opened.enter_context(stack.connect(watch(guests[0])))
        opened.enter_context(stack.connect(watch(guests[1])))  # counted apart
        opened.enter_context(stack.open(guests[0]))  # no watcher
        waiting(stack, 4)
        token = watch(guests[0])
        assert_refused(stack, token, "2 watchers")
        first.close()
        waiting(stack, 3)
        opened.enter_context(stack.connect(token))
        waiting(stack, 4)
        restart(stack)
        waiting(stack, 4)
        assert_refused(stack, watch(guests[0]), "2 watchers")
        opened.enter_context(stack.connect(watch(guests[1])))
        waiting(stack, 5)
    stack.wait_free()


def test_tokens_outstanding(make_stack, guests):
    stack = make_stack("supervisor", "gateway", "api", limits={"tokens": 2})
    path = f"/v1/guests/{guests[0]}/tokens"

    def assert_full():
        status, problem = stack.rest("POST", path, {})
        assert (status, problem["code"]) == (429, "limit_reached")
        assert "2 tokens" in problem["detail"]
        done = stack.cli("token", guests[0])
        assert (done.returncode, done.stdout) == (1, "")
        assert "2 tokens" in done.stderr

    issued = [stack.rest("POST", path, {"ttl": TTL})[1] for _ in range(2)]
    assert_full()
    with stack.connect(issued[0]["token"]):  # a used one is none any more
        waiting(stack, 1)
        assert stack.rest("POST", path, {"ttl": TTL})[0] == 201
        assert_full()
    stack.wait_free()
    assert stack.rest("DELETE", f"/v1/tokens/{issued[1]['id']}")[0] == 204
    issued_at = time.monotonic()
    assert stack.rest("POST", path, {"ttl": 1})[0] == 201
    early = stack.ask("issue", guest=guests[0])
    assert early.get("code") == "limit_reached" or time.monotonic() > issued_at + 1
    assert rig.eventually(lambda: stack.ask("issue", guest=guests[0])["ok"])  # that one expires


@pytest.mark.parametrize("limits", [{"sessions": 1}, {"per_user": 1}], ids=str)
def test_a_takeover_needs_no_room_of_its_own(make_stack, guests, limits):
    stack = make_stack("supervisor", "gateway", limits=limits)
    with stack.open(guests[0], user="alice") as old:
        waiting(stack, 1)
        assert_refused(stack, stack.token(guests[1], user="alice"))
        with stack.open(guests[0], user="alice", takeover=True):
            assert old.ended()[0] == 4410
            waiting(stack, 1)
    stack.wait_free()

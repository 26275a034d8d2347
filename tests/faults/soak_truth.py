"""What a guest printed, by QEMU's own log of the serial port, and clients' streams against it.

A guest of the soak has ``<log file=…>`` on its serial port: QEMU writes there each byte that the
port took, and one that it did not take, because the pty was full, again at each try. So every
client's stream can be checked byte for byte, wherever it begins: it must be a copy of the log from
some place on, with our notices in between, and go on exactly N bytes later after "[N bytes of
output skipped]". Only where a notice says that the console was away (guest off, libvirt lost, held
by another) may it go on anywhere further down, after what the pty held; and shortly after a console
was opened QEMU itself may leave something out: it looks only once a second whether somebody has
opened its pty, and until then drops, and logs, what finds the pty full.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_NOTICE = re.compile(rb"(\r\n)?\x1b\[2m\[([^\x1b]*)\]\x1b\[22m\r\n")
_CUT_NOTICE = re.compile(rb"(\r\n)?\x1b\[2m\[[^\x1b]*(\]\x1b?\[?2?2?m?\r?)?\Z")
_BEGINNING = b"\r\n\x1b[2m["
_SOFT_RESET = b"\x1b[!p"
_GAP = re.compile(rb"(\d+) bytes of output skipped")
_AWAY = re.compile(
    rb"waiting for its start|has started|connection to libvirt|held by another program|free again"
)
_LINE = re.compile(rb"<(\w{5}):(\d{6})>")

PTY = 24576
"""Bytes that a pty holds for its next reader (20 KB, DESIGN.md, fact 2, and some more)."""
REPLAY = 65536
"""Bytes of a replay, in which the console may have been away without a word."""
PROBE = 48
"""Bytes by which a place in the log is found: more are seldom free of one that was logged twice."""
PARTS = 12
"""Parts of what the pty held, since it may have had several readers who took little, and of what
QEMU did not drop."""
TWICE = 8
"""Bytes that QEMU may have logged twice within a gap: where the client is stalled, the pty is
seldom full."""


class MismatchError(Exception):
    """A stream is no copy of what the guest printed."""


@dataclass
class Verdict:
    """What a checked stream held: bytes of the guest's, gap marks, bytes that these say."""

    checked: int = 0
    gaps: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class _Piece:
    """Guest's bytes, or a notice; ``crlf``: a line end stands before it, its own or the guest's.

    ``before``: how many bytes of it, that the pty held, are left out already, in how many
    ``parts``; ``opened``: how many may have come before QEMU saw that its pty is open.
    """

    data: bytes = b""
    notice: bytes | None = None
    crlf: bool = False
    before: int = 0
    parts: int = 0
    opened: int = 0


class Truth:
    """The log of one guest's serial port, over all its runs.

    Args:
        path: the file, which QEMU appends to.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def size(self) -> int:
        """Return how many bytes the guest has printed."""
        return os.path.getsize(self.path)

    def since(self, begin: int) -> bytes:
        """Return what the guest has printed from there on."""
        with open(self.path, "rb") as file:
            file.seek(begin)
            return file.read()

    def still(self, seconds: float, patience: float) -> bool:
        """Wait until the guest has printed nothing for so long; tell whether it came to that."""
        deadline = time.monotonic() + max(seconds, patience)
        size, since = self.size(), time.monotonic()
        while time.monotonic() - since < seconds and time.monotonic() < deadline:
            time.sleep(0.05)
            if size != (size := self.size()):
                since = time.monotonic()
        return time.monotonic() - since >= seconds

    def lines(self, typist: str, begin: int) -> list[int]:
        """Return the numbers of a typist's lines that the guest has sent back, in order."""
        with self._view() as view:
            found = _LINE.finditer(view, begin)
            return [int(one[2]) for one in found if one[1] == typist.encode()]

    def has(self, line: bytes, begin: int) -> bool:
        """Tell whether the guest has printed this, be some of its bytes logged twice."""
        pattern = b"+".join(re.escape(bytes([byte])) for byte in line)
        with self._view() as view:
            return re.search(pattern, view[begin:]) is not None

    def check(
        self,
        stream: bytes,
        begin: int,
        *,
        away: bool,
        opened: Callable[[int], int] = lambda _at: 0,
    ) -> Verdict:
        """Check a client's whole stream.

        Args:
            stream: all that came, in order.
            begin: the log's size when the client asked for its token, less what a replay may show.
            away: the console was away while the client was there; the notice that says so may be
                among what a gap mark stands for.
            opened: how many bytes came shortly after the one of this number, at which the console
                was opened.

        Raises:
            MismatchError: it differs; the message says where.
        """
        replayed = stream.startswith(_SOFT_RESET)
        pieces = list(_pieces(stream, len(_SOFT_RESET) if replayed else 0, opened))
        with self._view() as view:
            walk = _Walk(view, pieces, away, replayed, begin)
            if not walk.go(0, None, begin):
                raise MismatchError(walk.worst)
        verdict = Verdict()
        for piece in pieces:
            verdict.checked += len(piece.data)
            if (gap := _gap(piece)) is not None:
                verdict.gaps += 1
                verdict.skipped += gap
        return verdict

    def _view(self) -> mmap.mmap:
        with open(self.path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _Walk:
    """Looks for a place in the log that a stream can be a copy from."""

    def __init__(
        self, view: mmap.mmap, pieces: list[_Piece], away: bool, replayed: bool, begin: int
    ) -> None:
        self._held = PTY + (REPLAY if replayed else 0)
        self._begin = begin
        self._newest = len(view) if replayed or (pieces and pieces[0].opened) else begin + PTY
        self._view = view
        self._pieces = pieces
        self._away = away
        self._furthest = -1
        self.worst = "no place in the log fits"

    def go(self, index: int, at: int | None, floor: int) -> bool:
        """Whether the pieces from ``index`` on fit, the next byte being the log's ``at``.

        ``at`` None: it may be any from ``floor`` on.
        """
        while index < len(self._pieces):
            piece = self._pieces[index]
            if piece.notice is None:
                if at is None:
                    return self._search(index, floor)
                end = self._same(index, at)
                if end is None:
                    return False
                at = floor = end
            else:
                if piece.crlf and at is not None and self._view[at : at + 2] == b"\r\n":
                    # The line end may be the guest's or the notice's own: try both.
                    with self._instead(index, _Piece(notice=piece.notice)):
                        if self.go(index, at + 2, at + 2):
                            return True
                if (gap := _gap(piece)) is not None:
                    floor += gap
                    if at is not None:
                        return self._over_gap(index + 1, at + gap)
                elif _AWAY.search(piece.notice):
                    at = None
            index += 1
        return True

    def _over_gap(self, index: int, at: int) -> bool:
        """Go on after a gap mark, exactly there; later by what QEMU logged twice meanwhile."""
        if any(self.go(index, at + twice, at + twice) for twice in range(TWICE)):
            return True
        return self._away and self.go(index, None, at)

    def _search(self, index: int, floor: int) -> bool:
        piece = self._pieces[index]
        at = self._view.find(piece.data[:PROBE], floor)
        while at >= 0:
            end = self._same(index, at)
            if end is not None and self.go(index + 1, end, end):
                return True
            at = self._view.find(piece.data[:PROBE], at + 1)
        if index == len(self._pieces) - 1 and any(
            self._view.find(data[:PROBE], floor) >= 0 for data in _uncut(piece.data)
        ):
            return True
        # What was left in the pty when its reader before went away comes first: the kernel keeps
        # that for the next one. What the guest prints while the pty is full, QEMU drops.
        oldest, newest = (0, self._newest) if floor == self._begin else (floor, len(self._view))
        held = max(self._held, piece.opened) - piece.before
        length = self._printed_part(piece.data[: max(0, held)], oldest, newest)
        if length and piece.parts < PARTS:  # seven bytes were seen
            rest = dataclasses.replace(
                piece,
                data=piece.data[length:],
                before=piece.before + length,
                parts=piece.parts + 1,
            )
            with self._instead(index, rest):
                if self.go(index, None, floor):
                    return True
        self._note(
            index, f"of {len(piece.data)} bytes {length} are in the log", piece.data[length:]
        )
        return False

    @contextlib.contextmanager
    def _instead(self, index: int, other: _Piece) -> Iterator[None]:
        before, self._pieces[index] = self._pieces[index], other
        try:
            yield
        finally:
            self._pieces[index] = before

    def _printed_part(self, data: bytes, oldest: int, newest: int) -> int:
        """Return how long a beginning of the data is in this part of the log."""
        low, high = 0, len(data)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high)
                if self._view.find(data[:middle], oldest, newest) >= 0
                else (low, middle - 1)
            )
        return low

    def _same(self, index: int, at: int) -> int | None:
        """Compare a piece with the log from ``at`` on; return where it ends there."""
        data = self._pieces[index].data
        done = 0
        while True:
            done += _common(data[done:], self._view[at + done : at + len(data)])
            if done == len(data):
                return at + done
            here = at + done
            if not here or self._view[here : here + 1] != self._view[here - 1 : here]:
                break
            if here >= len(self._view):
                break
            at += 1  # a byte that the full pty did not take, so it was tried again: logged twice
        last = index == len(self._pieces) - 1
        if last and len(data) - done <= len(_BEGINNING) and data[:done] in _uncut(data):
            return at + done
        printed = self._view[max(0, at + done - 60) : at + done + 60]
        what = f"byte {done} of a piece of {len(data)}, log at {at + done}: log {printed!r}"
        self._note(index, what, data[max(0, done - 60) : done + 60])
        return None

    def _note(self, index: int, what: str, data: bytes) -> None:
        if index >= self._furthest:
            self._furthest = index
            before = [
                one.notice or len(one.data) for one in self._pieces[max(0, index - 6) : index]
            ]
            self.worst = f"{what}; stream {data[:120]!r}; before it {before}"


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes two strings have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _uncut(data: bytes) -> list[bytes]:
    """Return what the end of a stream may be without the beginning of a notice."""
    starts = [_BEGINNING[at:end] for at in (0, 2) for end in range(len(_BEGINNING), at, -1)]
    return [data[: -len(start)] for start in starts if data.endswith(start)]


def without_notices(stream: bytes) -> bytes:
    """Return what a stream holds of the guest's."""
    return _NOTICE.sub(b"", stream)


def _pieces(stream: bytes, at: int, opened: Callable[[int], int]) -> Iterator[_Piece]:
    cut = _CUT_NOTICE.search(stream)
    if cut:
        stream = stream[: cut.start()]
    fresh = True
    for found in _NOTICE.finditer(stream, at):
        if found.start() > at:
            yield _Piece(stream[at : found.start()], opened=opened(at) if fresh else 0)
            fresh = False
        yield _Piece(notice=found[2], crlf=found[1] is not None)
        fresh = fresh or _AWAY.search(found[2]) is not None
        at = found.end()
    if at < len(stream):
        yield _Piece(stream[at:], opened=opened(at) if fresh else 0)


def _gap(piece: _Piece) -> int | None:
    found = _GAP.fullmatch(piece.notice or b"")
    return int(found[1]) if found else None

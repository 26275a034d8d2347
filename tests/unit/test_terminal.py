"""What of old output is shown again: everything but what a terminal would answer."""

from __future__ import annotations

import time

import pytest

from serial_console.terminal import rest_without_queries, without_queries

from ..fuzz.terminal_reference import answers

QUERIES = [
    # Each of these xterm.js 6 answers, or another terminal does.
    b"\x1b[c", b"\x1b[>c", b"\x1b[0;c", b"\x1b[6n", b"\x1b[?6n", b"\x1b[0006n", b"\x1b[6:1n",
    b"\x1bZ", b"\x05", b"\x1b[?1$p", b"\x1b[18t", b"\x1b[>0q", b"\x1b[?u", b"\x1b[?2;1S",
    b"\x1b]11;?\x07", b"\x1b]52;c;?\x1b\\", b"\x1b]4;1;?;2;red\x07", b"\x1b]10;?;?\x07",
    b"\x1b[?1004h", b"\x1b[?1000;1004;1006h", b"\x1b[?01004h",
    b"\x1bP$qm\x1b\\", b"\x1bP1$qm\x1b\\", b"\x1bP+q544e\x1b\\",
    # C1 control characters
    b"\xc2\x9b6n", b"\xc2\x9d11;?\x07", b"\x1b]11;?\xc2\x9c", b"\xc2\x90$qm\xc2\x9c",
    # what a terminal carries out or passes over within a sequence
    b"\x1b[6\nn", b"\x1b\x00[6n", b"\x1b[6\x7fn", b"\x1b[\x05c", b"\x1b[6\xffn", b"\x1b[6\x80n",
    b"\x1b[6\xef\xbb\xbfn", b"\x1b]11;\n?\x07", b"\x1bP\n$qm\x1b\\",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_taken_out_and_the_rest_stays(query: bytes) -> None:
    assert without_queries(b"before" + query + b"\x1b[31mafter") == b"before\x1b[31mafter"


@pytest.mark.parametrize(
    "output",
    [
        b"\x1b[\x1b[6nc", b"\x1b\x1b[6n[6n", b"\x1b]11;\x1b[6n?\x07", b"\x1b]11;?\x1b[0m",
        b"\x1bP$qm\x1b[0m", b"\xc2\x1b[6n\x9bc", b"\xc2\x05\x9bc",
        b"\x1b[\x05\x1b[c6n", b"\x1b[6\x18\x1b[6nn", b"\x1b\xc2\x9b6n[c",
    ],
)  # fmt: skip
def test_what_is_broken_off_makes_up_no_query(output: bytes) -> None:
    once = without_queries(output)
    assert without_queries(once) == once
    assert not once.startswith((b"\x1b]", b"\x1bP", b"\x1b[c", b"\x1b[6", b"\xc2\x9b"))


OTHERS = [
    bytes(range(5)) + bytes(range(6, 0x1B)) + b"\x1c \x7f\x80\xff\xc2",
    "Grüße, ☃ and \U0001f600\r\n".encode(),
    b"\x1b[1;31mred\x1b[m\x1b[2J\x1b[H\x1b[?25l\x1b[!p\x1b[22;0;0t\x1b[s\x1b[u\x1b[5 q",
    b"\x1b]0;what? yes;?\x07\x1b]2;title\x1b\\\x1b]8;;http://x/?a=b;c\x1b\\link",
    b"\x1b]4;1;rgb:00/00/00\x07\x1b(0lqk\x1b(B\x1b7\x1b8\x1bc\x1b=\x1bP0;1|17/ab\x1b\\",
    b"cut off at the end \x1b[6",
    b"cut off at the end \x1b]11;?",
]


@pytest.mark.parametrize("output", OTHERS)
def test_everything_else_stays(output: bytes) -> None:
    assert without_queries(output) == output


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_that_was_shown_in_part_is_not_answered(query: bytes) -> None:
    tail = b"\x1b[31mafter"
    output = b"before" + query + tail
    for cut in range(len(output) + 1):
        before, rest = output[:cut], rest_without_queries(output[:cut], output[cut:])
        assert answers(before + rest) == answers(before), cut
        assert rest.endswith(output[max(cut, len(output) - len(tail)) :]), cut


@pytest.mark.parametrize("output", OTHERS)
def test_whatever_else_was_shown_in_part_goes_on(output: bytes) -> None:
    for cut in range(len(output) + 1):
        assert rest_without_queries(output[:cut], output[cut:]) == output[cut:], cut


@pytest.mark.parametrize(
    "piece",
    [b"\x1b[", b"\x1b]", b"\x1b", b"\x1b]4;", b"\x1bP\x00", b"\x1b[6\x80", b"\xc2\x9b", b";?"],
)
def test_no_output_takes_long(piece: bytes) -> None:
    began = time.process_time()
    without_queries(piece * (65536 // len(piece)))
    without_queries(b"\x1b]" + piece * (65536 // len(piece)))
    assert time.process_time() - began < 1

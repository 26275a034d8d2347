"""What we ourselves say to a client's terminal, and what must not be said to it twice."""

from __future__ import annotations

import re

SOFT_RESET = b"\x1b[!p"
"""DECSTR: modes and attributes to their defaults; the screen stays."""

_QUERIES = re.compile(
    rb"\x05"  # ENQ
    rb"|\x1bZ"  # DECID
    rb"|\x1b\[[>=?]?[0-9;]*c"  # DA1, DA2, DA3
    rb"|\x1b\[\??[0-9;]*n"  # DSR, CPR
    rb"|\x1b\[\??[0-9;]*\$p"  # DECRQM
    rb"|\x1b\[>[0-9;]*q"  # XTVERSION
    rb"|\x1b\[\?u"  # kitty keyboard query
    rb"|\x1b\[[0-9;]*x"  # DECREQTPARM
    rb"|\x1b\[(?:1[1-9]|2[01])(?:;[0-9]*)*t"  # window reports
    rb"|\x1b\[\?[0-9;]*S"  # graphics attributes
    rb"|\x1b\](?![012];)[^\x07\x1b]*;\?(?:\x07|\x1b\\)"  # OSC colour and clipboard queries
    rb"|\x1bP[+$]q[^\x1b\x07]*\x1b\\"  # XTGETTCAP, DECRQSS
)


def without_queries(output: bytes) -> bytes:
    """Return the output without the sequences that a terminal answers.

    A terminal that is shown old output would type its answers into the guest.
    """
    return _QUERIES.sub(b"", output)


def notice(text: str, at_line_start: bool) -> bytes:
    """Return one dim line in square brackets on its own row.

    Only the dimness is set and taken back, so that a colour which the guest has set stays.
    """
    start = b"" if at_line_start else b"\r\n"
    return start + b"\x1b[2m[" + text.encode() + b"]\x1b[22m\r\n"

"""What we ourselves say to a client's terminal, and what must not be said to it twice."""

from __future__ import annotations

import codecs
import re

ENQ = b"\x05"
"""Asks for the answerback message."""
SOFT_RESET = b"\x1b[!p"
"""DECSTR: modes and attributes to their defaults; the screen stays."""

CANCEL = b"\x18"
"""CAN: ends a sequence that was begun."""

# What terminals pass over or carry out within a sequence: control characters, and bytes that are no
# UTF-8 (decoded with surrogateescape).
_WITHIN = "\x00-\x17\x19\x1c-\x1f\x7f\ufeff\udc80-\udcff"
_within = re.compile(f"[{_WITHIN}]")
# A sequence as far as it goes: whether it has its end is told by ``lastgroup``.
_sequence = re.compile(
    rf"(?:(?:\x1b[{_WITHIN}]*\[|\x9b)[ -?{_WITHIN}]*(?P<csi>[@-~])?"
    rf"|(?:\x1b[{_WITHIN}]*\]|\x9d)[^\x07\x18\x1a\x1b\x80-\x9f]*(?P<osc>\x07|\x9c|\x1b\\)?"
    rf"|(?:\x1b[{_WITHIN}]*[PX^_]|[\x90\x98\x9e\x9f])[^\x18\x1a\x1b\x80-\x9f]*(?P<dcs>\x9c|\x1b\\)?"
    rf"|\x1b[ -/{_WITHIN}]*(?P<esc>[0-~])?)"
    "[\udc80-\udcff]*"  # with what comes before they could make up a character
)
_query = re.compile(
    r"(?:\x1b\[|\x9b)(?:"
    r"[>=?]?[\d:;]*[cn]"  # DA1, DA2, DA3; DSR, CPR
    r"|\??[\d:;]*\$p"  # DECRQM
    r"|>[\d:;]*q"  # XTVERSION
    r"|\?u"  # kitty keyboard query
    r"|[\d:;]*x"  # DECREQTPARM
    r"|0*(?:1[1-9]|2[01])(?:[:;][\d:;]*)?t"  # window reports
    r"|\?[\d:;]*S"  # graphics attributes
    r"|\?(?:[\d:;]*[;:])?0*1004(?:[;:][\d:;]*)?h"  # focus reports: xterm.js sends the first at once
    r")"
    r"|(?:\x1b\]|\x9d)(?!0*[012];)(?:.*;)?\?[;\x07\x9c\x1b]"  # OSC colour and clipboard queries
    r"|(?:\x1bP|\x90)[0-?]*[$+]q"  # XTGETTCAP, DECRQSS
    r"|\x1bZ",  # DECID
    re.DOTALL,
)


def without_queries(output: bytes) -> bytes:
    """Return the output without the sequences that a terminal answers.

    A terminal that is shown old output would type its answers into the guest. Sequences that
    another one breaks off go too: around one that is taken out, the rest could make up a query.
    """
    return _bytes(_sequence.sub(_replayed, _text(output)))


def rest_without_queries(before: bytes, output: bytes) -> bytes:
    """Return ``without_queries(output)`` for a terminal that has been shown ``before``.

    A sequence that was shown in part may turn out to be a query: it is cancelled.
    """
    text = _text(before + output)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    shown = len(decoder.decode(before.replace(ENQ, b"")))
    half, _ = decoder.getstate()  # of a character, of which the rest comes first
    broken = False  # off by a character that a terminal may pass over
    for match in _sequence.finditer(text):
        if match.end() <= shown:
            broken = match.lastgroup is None and match.end() < len(text)
            continue
        if match.start() < shown + (bool(half) and not broken):
            after = _bytes(_sequence.sub(_replayed, text[match.end() :]))
            if not _is_kept(match):
                return CANCEL + after
            known = len(_bytes(text[match.start() : shown])) + len(half)
            return _bytes(match[0])[known:] + after
        break
    if broken:
        return CANCEL + _bytes(_sequence.sub(_replayed, text[shown + bool(half) :]))
    return _bytes(_sequence.sub(_replayed, text[shown:]))[len(half) :]


def _text(output: bytes) -> str:
    return output.replace(ENQ, b"").decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _replayed(match: re.Match[str]) -> str:
    return match[0] if _is_kept(match) else ""


def _is_kept(match: re.Match[str]) -> bool:
    if match.lastgroup is None:  # the last one is completed by what comes next
        return match.end() == len(match.string)
    return not _query.match(_within.sub("", match[0]) + "\x07")  # BEL went too


def notice(text: str, at_line_start: bool) -> bytes:
    """Return one dim line in square brackets on its own row.

    Only the dimness is set and taken back, so that a colour which the guest has set stays.
    """
    start = b"" if at_line_start else b"\r\n"
    return start + b"\x1b[2m[" + text.encode() + b"]\x1b[22m\r\n"

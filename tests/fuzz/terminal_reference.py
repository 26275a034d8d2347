"""What a terminal would answer: a slow reader of its output, one character at a time.

It follows the parser that xterm.js and others share (vt100.net/emu/dec_ansi_parser), as its own
tables say it, and so not the expressions of serial_console/terminal.py, which it is to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ESC, _CAN, _SUB, _BEL = "\x1b", "\x18", "\x1a", "\x07"
_C1 = {"\x9b": "csi", "\x9d": "osc", "\x90": "dcs", "\x98": "sos", "\x9e": "sos", "\x9f": "sos"}
_AFTER_ESC = {"[": "csi", "]": "osc", "P": "dcs", "X": "sos", "^": "sos", "_": "sos"}
_WINDOW_REPORTS = {str(number) for number in (11, 13, 14, 15, 16, 18, 19, 20, 21)}


@dataclass
class _Reader:
    state: str = "ground"
    text: str = ""
    answers: list[str] = field(default_factory=list)

    def read(self, character: str) -> None:
        if character == "\x05" and self.state in ("ground", "csi", "escape"):
            self.answers.append("ENQ")
        elif character == _ESC:
            self._string_ends()
            self.state, self.text = "escape", ""
        elif character in (_CAN, _SUB):
            self.state = "ground"
        elif character in _C1:
            self._string_ends()
            self.state, self.text = _C1[character], ""
        elif "\x80" <= character <= "\x9f":
            self._string_ends()
            self.state = "ground"
        else:
            getattr(self, f"_{self.state}")(character)

    def _string_ends(self) -> None:
        if self.state == "osc":
            self._osc_is_whole()
        elif self.state == "dcs" and re.match(r"[0-?]*[$+]q", self.text):
            self.answers.append("DCS " + self.text)

    def _ground(self, character: str) -> None:
        pass

    def _escape(self, character: str) -> None:
        if character in _AFTER_ESC and not self.text:
            self.state, self.text = _AFTER_ESC[character], ""
        elif " " <= character <= "/":
            self.text += character
        elif "0" <= character <= "~":
            if character == "Z" and not self.text:
                self.answers.append("DECID")
            self.state = "ground"

    def _csi(self, character: str) -> None:
        if "@" <= character <= "~":
            if _answered(self.text, character):
                self.answers.append(f"CSI {self.text}{character}")
            self.state = "ground"
        elif " " <= character <= "?":
            self.text += character

    def _osc(self, character: str) -> None:
        if character == _BEL:
            self._osc_is_whole()
            self.state = "ground"
        elif character >= " ":
            self.text += character

    def _osc_is_whole(self) -> None:
        number, _, rest = self.text.partition(";")
        if number.isdigit() and int(number) > 2 and "?" in rest.split(";"):
            self.answers.append("OSC " + self.text)

    def _dcs(self, character: str) -> None:
        self.text += character if character >= " " else ""

    def _sos(self, character: str) -> None:
        pass


def _answered(parameters: str, final: str) -> bool:
    first = re.split("[:;]", parameters.lstrip("?>="))[0].lstrip("0")
    plain = re.fullmatch(r"[0-9:;]*", parameters) is not None
    if final in "cn":
        return re.fullmatch(r"[?>=]?[0-9:;]*", parameters) is not None
    if final == "t":
        return plain and first in _WINDOW_REPORTS
    if final == "p":
        return re.fullmatch(r"\??[0-9:;]*\$", parameters) is not None
    return final == "x" and plain


def answers(output: bytes) -> list[str]:
    """Return what of the output a terminal would answer, by name, in order."""
    reader = _Reader()
    for character in output.decode("utf-8", "ignore"):
        reader.read(character)
    return reader.answers

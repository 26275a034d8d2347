# ruff: noqa: E501 - one item a line
"""What a terminal has to show right, in the manner of vttest; for a screen of 80 by 24.

integration/test_corpus.py shows it in the page and in a reference terminal, and compares all cells.
"""

from __future__ import annotations

import random

CSI = b"\x1b["
LINES = b"".join(b"line %02d of the screen\r\n" % number for number in range(1, 24)) + b"the last"
GRID = b"\r\n".join(bytes(range(0x21, 0x71)) for _ in range(24))


def _at(row: int, column: int, text: bytes = b"") -> bytes:
    return b"\x1b[%d;%dH%b" % (row, column, text)


def _frame() -> bytes:
    """Return vttest's frame of * and + around a frame of E, by all ways to move the cursor."""
    made = CSI + b"2J" + b"\x1b#8"
    made += (
        _at(9, 10) + CSI + b"1J" + _at(18, 60, CSI + b"0J" + CSI + b"1K") + _at(9, 71, CSI + b"0K")
    )
    for row in range(10, 17):
        made += _at(row, 10, CSI + b"1K") + _at(row, 71, CSI + b"0K")
    made += _at(17, 30, CSI + b"2K")
    for column in range(1, 81):
        made += b"\x1b[%d;%df*" % (24, column) + b"\x1b[%d;%df*" % (1, column)
    made += _at(2, 2) + b"".join(b"+\x1b[1D\x1bD" for _ in range(22))
    made += _at(23, 79) + b"".join(b"+\x1b[1D\x1bM" for _ in range(22))
    made += _at(2, 1) + b"".join(b"*" + _at(row, 80, b"*") + b"\x1bE" for row in range(2, 24))
    made += _at(2, 10) + CSI + b"42D" + CSI + b"2C" + b"+" * 76 + _at(23, 70)
    made += CSI + b"42C" + CSI + b"2D" + b"+\x08\x1b[1D" * 76
    made += _at(1, 1) + CSI + b"10A\x1b[1A\x1b[0A" + _at(24, 80) + CSI + b"10B\x1b[1B\x1b[0B"
    return made + _at(10, 12, b"the frame must be whole") + b" " * 8 + _at(11, 12)


def _attributes() -> bytes:
    """Return each attribute alone, each pair, and each taken back."""
    numbers = [1, 2, 3, 4, 5, 7, 8, 9, 53]
    alone = b"".join(b"\x1b[0;%dm%02d\x1b[m " % (one, one) for one in numbers)
    pairs = b"".join(b"\x1b[0;%d;%dmx" % (one, two) for one in numbers for two in numbers)
    back = b"".join(b"\x1b[%dmx\x1b[%dmy" % (on, off) for on, off in zip(
        [1, 2, 3, 4, 5, 7, 8, 9, 53, 31, 41, 91, 101],
        [22, 22, 23, 24, 25, 27, 28, 29, 55, 39, 49, 39, 49],
        strict=True,
    ))  # fmt: skip
    return alone + b"\r\n" + pairs + b"\x1b[m\r\n" + back + b"\x1b[m\r\n"


def _colours() -> bytes:
    """Return the sixteen, the 256, true colours in both ways to write them, and broken ones."""
    made = b""
    for base in (30, 40, 90, 100):
        made += b"".join(b"\x1b[%dm#" % (base + colour) for colour in range(8)) + b"\x1b[m\r\n"
    made += b"".join(b"\x1b[38;5;%dmx\x1b[48;5;%dm " % (one, 255 - one) for one in range(256))
    made += b"\x1b[m\r\n"
    for step in range(0, 256, 17):
        made += b"\x1b[38;2;%d;0;%dm\x1b[48:2::0:%d:9mo" % (step, 255 - step, step)
    made += b"\x1b[m\r\n\x1b[38:5:208ma\x1b[58;5;9;4mb\x1b[4:3mc\x1b[59md\x1b[4:0me\x1b[21mf\x1b[m"
    return made + b"\x1b[38;5m1\x1b[38;2;1m2\x1b[38m3\x1b[48;5;999m4\x1b[;;31;m5\x1b[1;m6\x1b[m"


def _charsets() -> bytes:
    graphics = bytes(range(0x5F, 0x7F))
    return (
        b"\x1b(0" + graphics + b"\x1b(B" + graphics + b"\r\n"
        b"\x1b)0\x0e" + graphics + b"\x0f" + graphics + b"\r\n"
        b"\x1b(A#pound\x1b(Bhash \x1b(K[\\]{|}~\x1b(B \x1b(R#[\\]\x1b(B \x1b*0\x1bnlqk\x0f\r\n"
        b"\x1b(0lqqk\x1b7\x1b(Bx\x1b8mqqj\x1b(B saved with the cursor \x1b(0\x1bcafter a reset lqk"
    )


def _random(seed: int) -> bytes:
    """Return text and sequences that are all well-formed, in no order."""
    chosen = random.Random(seed)
    made = []
    for _ in range(900):
        one, two = chosen.randrange(30), chosen.randrange(90)
        made.append(chosen.choice([
            b"word ", "ä中e\u0301\U0001f600".encode(), b"\r\n", b"\t", b"\b", b"\x1bM", b"\x1bD", b"\x1bE",
            b"\x1b7", b"\x1b8", b"\x1b(0", b"\x1b(B", b"\x1bH", b"\x1b[?7h", b"\x1b[?7l", b"\x1b[4h", b"\x1b[4l",
            b"\x1b[?6h", b"\x1b[?6l", b"\x1b[%d;%dr" % (one // 3 + 1, one // 3 + 9), b"\x1b[r",
            b"\x1b[%dm" % chosen.choice([0, 1, 2, 3, 4, 7, 9, 31, 42, 95, 107]), b"\x1b[48;5;%dm" % two,
            *(b"\x1b[%d%c" % (one % 9, final) for final in b"@ABCDEFGIJKLMPSTXZ`adeb"),
            b"\x1b[%d;%dH" % (one, two), b"\x1b[?%dJ" % (one % 3), b"\x1b[?1049%c" % chosen.choice(b"hl"),
        ]))  # fmt: skip
    return b"".join(made)


CORPUS: dict[str, bytes] = {
    "frame": _frame(),
    "C0 within sequences": b"A\x1b[2\bCB\x1b[\r2CC\x1b[1\x0bAD\x1b[\x00\x7f3GE\x1b[1\x1b[5GF\x1b[3\x18G",
    "leading zeros": _at(3, 4, b"a") + b"\x1b[00000000005;0000000006Hb\x1b[0Ac\x1b[;Hd\x1b[2;He\x1b[;3Hf",
    "moves past the edges": b"\x1b[999;999Ha\x1b[999Ab\x1b[999Dc\x1b[999Bd\x1b[999Ce\x1b[5Ef\x1b[99Fg",
    "columns and rows": b"\x1b[7Ga\x1b[9`b\x1b[3ac\x1b[6dd\x1b[2ee\x1b[3;5ff\x1b[2Eg\x1b[Fh",
    "wrap": b"x" * 79 + b"yz" + b"x" * 78 + b"y\x1b[0K" + b"z" * 80 + b"\b\bB\r\nend",
    "wrap pending": b"x" * 80 + b"\x1b[A1" + b"\r\n\n" + b"x" * 80 + b"\b2\r\n" + b"x" * 80 + b"\t3\r\n"
    + b"x" * 80 + b"\x1b[K4\r\n" + b"x" * 80 + b"\x1b7\r\n\x1b85\r\n" + b"x" * 80 + b"\x1b[m6",
    "no wrap": b"\x1b[?7l" + b"x" * 79 + b"yz!" + b"\r\n\x1b[?7h" + b"x" * 79 + b"yz",
    "reverse wrap": b"\x1b[?45h" + b"x" * 83 + b"\b" * 5 + b"<\x1b[?45l\r\n" + b"x" * 83 + b"\b" * 5 + b"<",
    "tabs": b"a\tb\tc\r\n\x1b[3g\x1b[5G\x1bH\x1b[15G\x1bH\x1b[70G\x1bH\ra\tb\tc\td\te\r\n"
    b"\x1b[15G\x1b[g\r\tx\ty\x1b[2Zz\x1b[2I!\x1b[99I$\x1b[99Z^\x1b[?5W\r\tq",
    "scrolling region": LINES + b"\x1b[8;16r\x1b[16;1H\n\n\nA\x1b[8;1H\x1bM\x1bM\x1b[31mB\x1b[3SC\x1b[2TD"
    b"\x1b[17;1H\n\n\nE\x1b[1;1H\x1bMF\x1b[r\x1b[24;1H\nG",
    "region's bad bounds": LINES + b"\x1b[9;3ra\x1b[5;5rb\x1b[0;99rc\x1b[12rd\x1b[;4re",
    "origin": LINES + b"\x1b[5;20r\x1b[?6h\x1b[1;1Htop\x1b[99;99H.\x1b[3dthird\x1b[99Aup\x1b[99Bdown\x1b7"
    b"\x1b[?6l\x1b[1;1Hhome\x1b8back\x1b[1;1H*",
    "scrollback": b"".join(b"%d \x1b[4%dm%b\x1b[m\r\n" % (n, n % 8, b"x" * (n % 120)) for n in range(300)),
    "scroll with a background": GRID + b"\x1b[44m\n\n\x1b[2S\x1b[2T\x1b[3;1H\x1bM\x1b[1;1H\x1bM\x1b[2L\x1b[M",
    "insert and delete lines": GRID + _at(5, 5) + b"\x1b[3LI\x1b[2B\x1b[2MD\x1b[3;9r" + _at(4, 4)
    + b"\x1b[99L" + _at(12, 1) + b"\x1b[M\x1b[r" + _at(20, 80) + b"\x1b[99M",
    "insert and delete characters": GRID + b"".join(
        _at(row, row, b"\x1b[%d%c!" % (row, final)) for row, final in zip(range(1, 24), b"@PX" * 8, strict=False)
    ),
    "insert mode": GRID + _at(3, 3, b"\x1b[4hinserted\xe4\xb8\xad") + _at(4, 78, b"abcdef\x1b[4lover"),
    "shift columns": GRID + b"\x1b[3 @\x1b[5;9r\x1b[6;6H\x1b[2 A\x1b[2'}\x1b[1'~\x1b[r",
    "erase in line": b"".join(GRID[:80] + _at(n + 1, 9 * n + 1, b"\x1b[4%dm\x1b[%dK" % (n, n % 3)) + b"\r\n"
                              for n in range(8)),
    "erase in display": b"".join(GRID + _at(12, 40, b"\x1b[45m\x1b[%dJ" % n) + b"\x1b[m" for n in (0, 1)),
    "erase all, and the scrollback": LINES * 3 + b"\x1b[2J\x1b[3Jx",
    "erase what is not protected": b'\x1b[1"qkept\x1b[0"q gone\x1b[?2K\x1b[1"q kept\r\nline\x1b[?J\x1b[2K',
    "erase within wide characters": "中中中中".encode() + b"\x1b[4G\x1b[X\x1b[1Gx\x1b[7G\x1b[1K\r\n"
    + "中中中中".encode() + b"\x1b[2G\x1b[P\x1b[2G\x1b[@y\x1b[5G!",
    "repeat": b"-\x1b[20bx\x1b[b" + "中".encode() + b"\x1b[3b\r\n" + "e\u0301".encode() + b"\x1b[3b\x1b[m\x1b[2b",
    "attributes": _attributes(),
    "colours": _colours(),
    "attributes saved and restored": b"\x1b[1;31;44ma\x1b7\x1b[m\x1b[3;3Hb\x1b8c\x1b[s\x1b[32m\x1b[9;9H\x1b[ud",
    "charsets": _charsets(),
    "wide": "中文かな한글ＡＢ".encode() * 9 + b"\x1b[5;80H" + "中".encode() + b"\x1b[7;79H" + "中文".encode(),
    "combining": "e\u0301 a\u0308\u0323 \u0301x n\u0303\u0303 क्षि ก็ ".encode() + b"x" * 70 + "\u0301\u0302y".encode(),
    "emoji": "😀 👍🏽 👨‍👩‍👧 🇩🇪🇫🇷 ❤️ ❤ ☎︎ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ".encode() * 3,
    "wide at the edge, no wrap": b"\x1b[?7l" + b"x" * 79 + "中".encode() + b"|",
    "UTF-8 of every length": "\x7fé߿ࠀ￼�𐀀\U0010fffd".encode(),
    "C1 in UTF-8": "a\u0084b\u0085c\u008dd\u009b3Ge\u009d2;title\u009cf\u0090$qm\u009cg\u0088".encode(),
    "alternate screen": LINES + b"\x1b[31m\x1b[?1049h\x1b[Hother\x1b[3;3H\x1b[44mx\x1b[?1049ly\x1b[?47hz\x1b[?47l"
    b"\x1b[?1047h!\x1b[?1047l$\x1b[?1048h\x1b[1;1H\x1b[?1048l#",
    "alternate screen, left on": LINES + b"\x1b[?1049h\x1b[2;2Hfull screen\n\n\x1b[7mstatus\x1b[m",
    "line feed mode": b"a\nb\x1b[20hc\nd\x0be\x0cf\x1b[20lg\nh",
    "soft reset": b"\x1b[4h\x1b[?6h\x1b[5;9r\x1b[1;31m\x1b[?7l\x1b[?25l\x1b(0\x1b[!pa\x1b[1;1Hlq" + b"x" * 90,
    "full reset": LINES + b"\x1b[1;31;44m\x1b[5;9r\x1b[?6h\x1b[?1049h\x1b[?7l\x1bHx\x1bcafter\tit" + b"y" * 90,
    "alignment": b"\x1b[5;9r\x1b[31m\x1b#8\x1b[3;3Hx",
    "strings that are passed over": b"a\x1b]2;title\x07b\x1bP1$tx\x1b\\c\x1b_Gx\x1b\\d\x1b^x\x1b\\e\x1bXx\x1b\\f"
    b"\x1b]8;;http://x.invalid/\x1b\\link\x1b]8;;\x1b\\g\x1b]4;1;#123456\x07h\x1b]104\x07i",
    "unknown sequences": b"a\x1b[?9999hb\x1b[5zc\x1b[>4;2md\x1b[=1;2ue\x1b%%Gf\x1b#3g\x1b[?1;2;3$rh\x1b[1;2'{i",
    "queries": b"a\x1b[cb\x1b[6nc\x1b[?6nd\x1b[5ne\x1b[?1$pf\x1bP$qm\x1b\\g\x1b]11;?\x07h\x1b[>ci\x1b[21tj\x05k",
    "random 1": _random(1),
    "random 2": _random(2),
    "random 3": _random(3),
}  # fmt: skip
"""Output by what it tries."""

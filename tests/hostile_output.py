# ruff: noqa: E501 - one item a line
"""What a hostile guest may print, by what it is after; integration/test_hostile_output.py prints it.

Sources: xterm's ctlseqs, the handlers of xterm.js 6 (src/common/InputHandler.ts), the advisories on
terminals that answered with text of the guest's choice (title reports CVE-2003-0063, DECRQSS
CVE-2022-24130, font queries CVE-2022-45063), and what other terminals do beyond xterm.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

MARKER = "hostile_output_ran"
"""The property of ``window`` that a script of ours would set, if any of them ran."""

SCRIPT = f"window.{MARKER}=1".encode()
HTML = b"</title></script><script>" + SCRIPT + b"</script><img src=x onerror=" + SCRIPT + b">"
STRANGER = b"http://stranger.invalid/"
CLIPBOARD = b"ZXZpbA=="  # "evil"

ESC, ST, BEL, CAN = b"\x1b", b"\x1b\\", b"\x07", b"\x18"
MEGA = 300_000
HUGE = b"2147483647"
"""What xterm.js takes as the largest parameter."""

COLOUR = rb"rgb:[0-9a-f]{4}/[0-9a-f]{4}/[0-9a-f]{4}\x1b\\"
CURSOR = rb"\x1b\[\??\d+;\d+R"


@dataclass(frozen=True)
class Item:
    """One thing to print: ``head``, ``unit`` so many ``times``, ``tail``.

    ``answers`` is a pattern of all that a terminal may type into the guest because of it.
    """

    name: str
    head: bytes
    unit: bytes = b""
    times: int = 0
    tail: bytes = b""
    answers: bytes = b""

    def bytes(self) -> bytes:
        """Return it in full."""
        return self.head + self.unit * self.times + self.tail


def osc(text: bytes, end: bytes = BEL) -> bytes:
    """Return an operating system command."""
    return ESC + b"]" + text + end


def dcs(text: bytes) -> bytes:
    """Return a device control string."""
    return ESC + b"P" + text + ST


def csi(text: bytes) -> bytes:
    """Return a control sequence."""
    return ESC + b"[" + text


def link(address: bytes, text: bytes) -> bytes:
    """Return a hyperlink."""
    return osc(b"8;;" + address, ST) + text + osc(b"8;;", ST)


def _modes(*numbers: bytes) -> bytes:
    return b"".join(csi(b"?" + number + b"h") for number in numbers)


_random = random.Random(4)

# To write the clipboard, or to have it read and typed into the guest.
CLIPBOARD_ITEMS = [
    Item("clipboard: write", osc(b"52;c;" + CLIPBOARD)),
    Item("clipboard: write, ST", osc(b"52;c;" + CLIPBOARD, ST)),
    Item("clipboard: write, C1", b"\xc2\x9d52;c;" + CLIPBOARD + b"\xc2\x9c"),
    Item("clipboard: write every selection", osc(b"52;cpqs01234567;" + CLIPBOARD)),
    Item("clipboard: no selection named", osc(b"52;;" + CLIPBOARD)),
    Item("clipboard: clear", osc(b"52;c;!")),
    Item("clipboard: read", osc(b"52;c;?")),
    Item("clipboard: read every selection", osc(b"52;cpqs01234567;?", ST)),
    Item("clipboard: kitty's protocol", osc(b"5522;type=read;Lg==", ST)),
    Item(
        "clipboard: iTerm2 copies", osc(b"1337;CopyToClipboard=") + b"evil" + osc(b"1337;EndCopy")
    ),
    Item("clipboard: iTerm2's Copy", osc(b"1337;Copy=:" + CLIPBOARD)),
    Item("clipboard: 800 KB", ESC + b"]52;c;", b"ZXZpbGV2", 100_000, BEL),
]

# To look like another page, or to become markup.
TITLE_ITEMS = [
    Item(f"title: {what}, OSC {number}", osc(b"%d;" % number + text))
    for number in (0, 1, 2)
    for what, text in {
        "another page": b"Sign in - Your bank",
        "markup": HTML,
        "right-to-left": "\u202e\u2066gnp.exe\u2069".encode(),
        "line ends": b"one\r\ntwo\xe2\x80\xa8three\x85four",
        "nothing": b"",
    }.items()
]
TITLE_ITEMS += [
    Item("title: 100 KB", ESC + b"]0;", b"impersonate ", 8_334, BEL),
    Item("title: icon by OSC L, title by OSC l", osc(b"Levil") + osc(b"levil")),
    Item("title: DCS of screen", ESC + b"kevil" + ST),
    Item("title: push, pop, a thousand times", b"", csi(b"22;0t") + csi(b"23;0t"), 1000),
    Item("title: reported", osc(b"2;reboot\r") + csi(b"21t") + csi(b"20t")),
    Item("markup: plain", HTML + b"<!--" + b"&lt;b onload=" + SCRIPT + b"&#x3c;script>\r\n"),
    Item("markup: style", b"}</style><style>*{display:none}body{background:url(//x)}\r\n"),
    Item("markup: a colour that is CSS", osc(b"11;red}*{background:url(" + STRANGER + b")}")),
    Item("markup: a colour that is a script", osc(b"4;1;" + HTML)),
    Item("markup: cursor style", csi(b"5 q") + osc(b"50;CursorShape=1}*{color:red")),
    Item("markup: font", osc(b"50;url(" + STRANGER + b")") + osc(b"50;?")),
    Item("markup: a template", b"${" + SCRIPT + b"}{{" + SCRIPT + b"}}`" + SCRIPT + b"`\r\n"),
]

# Addresses. What a click does: see test_hostile_output.
BAD_ADDRESSES = [
    b"javascript:" + SCRIPT,
    b" Java\tScript:" + SCRIPT,
    b"data:text/html," + HTML,
    b"vbscript:" + SCRIPT,
    b"file:///etc/passwd",
    b"blob:http://127.0.0.1/x",
    b"view-source:http://127.0.0.1/",
    b"//stranger.invalid/",
    b"http://",
]
LINK_ITEMS = [
    Item(f"link: to {address[:20].decode()}", link(address, b"click") + b"\r\n")
    for address in [
        *BAD_ADDRESSES,
        STRANGER,
        b"http://bank.example@stranger.invalid/",
        STRANGER + b'"onmouseover="' + SCRIPT,
    ]
]
LINK_ITEMS += [
    Item("link: its id is markup", osc(b'8;id="><script>;' + STRANGER) + b"x" + osc(b"8;;")),
    Item("link: address of 100 KB", ESC + b"]8;;" + STRANGER, b"0123456789", 10_000, BEL + b"x"),
    Item("link: never ended", osc(b"8;;" + STRANGER), b"a line within it\r\n", 4000),
    Item("link: 20000 of them", b"", osc(b"8;;" + STRANGER) + b"x", 20_000),
    Item("link: plain", STRANGER + b" javascript:" + SCRIPT + b" file:///etc/passwd\r\n"),
]

# What other terminals do: files, notifications, folders, images, programs.
EXTENSION_ITEMS = [
    Item(f"extension: {name}", data)
    for name, data in {
        "OSC 7, folder": osc(b"7;file://stranger.invalid/etc"),
        "OSC 9, notification": osc(b"9;You have mail"),
        "OSC 9;4, progress": osc(b"9;4;1;50") + osc(b"9;9;/etc"),
        "OSC 99, notification of kitty": osc(b"99;i=1:d=0;" + HTML, ST),
        "OSC 133, prompt marks": osc(b"133;A") + osc(b"133;C;cmdline_url=reboot") + osc(b"133;D"),
        "OSC 633, VS Code": osc(b"633;E;reboot;x") + osc(b"633;P;Cwd=/etc"),
        "OSC 777, notification": osc(b"777;notify;You have mail;" + HTML),
        "OSC 1337, file": osc(b"1337;File=name=ZXZpbA==;size=4;inline=0:" + CLIPBOARD),
        "OSC 1337, image": osc(b"1337;File=inline=1;width=100%:" + CLIPBOARD),
        "OSC 1337, others": osc(b"1337;RequestUpload=format=tgz") + osc(b"1337;ReportVariable=dXNlcg==")
        + osc(b"1337;StealFocus") + osc(b"1337;SetProfile=x") + osc(b"1337;OpenURL=:" + CLIPBOARD)
        + osc(b"1337;ReportCellSize") + osc(b"1337;Capabilities"),
        "OSC 3, X property": osc(b"3;WM_NAME=evil") + osc(b"3;?WM_NAME"),
        "OSC 46, log file": osc(b"46;/tmp/evil"),
        "OSC 60 to 62, features": osc(b"60") + osc(b"61") + osc(b"62;?"),
        "OSC 701, 702, rxvt": osc(b"701;?") + osc(b"702;?") + osc(b"20;?") + osc(b"720;1"),
        "OSC 5, 13 to 19, colours": osc(b"5;0;?") + b"".join(osc(b"%d;?" % n) for n in range(13, 20)),
        "OSC with an endless number": osc(b"9" * 400 + b";x") + osc(b"-1;x") + osc(b"0x34;c;?"),
        "sixel": dcs(b"0;1;8q\"1;1;99999;99999#0;2;0;0;0!99999~-"),
        "ReGIS": dcs(b"0pS(E)P[0,0]V[100,100]"),
        "tmux passthrough": dcs(b"tmux;\x1b\x1b]52;c;?\x07"),
        "screen passthrough": dcs(b"\x1b]52;c;" + CLIPBOARD + BEL),
        "function keys (DECUDK)": dcs(b"0;1|17/7265626f6f740d"),
        "soft font (DECDLD)": dcs(b"1;1;1;10;0;2;20;0{ @~~~~/"),
        "macro (DECDMAC), invoked": dcs(b"1;0;1!z1B5B63") + csi(b"1*z"),
        "kitty graphics": ESC + b"_Gf=100,t=f,a=T;L2V0Yy9wYXNzd2Q=" + ST,
        "kitty graphics, query": ESC + b"_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA" + ST,
        "APC, PM, SOS": ESC + b"_" + HTML + ST + ESC + b"^" + HTML + ST + ESC + b"X" + HTML + ST,
        "kitty keyboard, left on": csi(b">31u") + csi(b"=31;1u"),
        "modifyOtherKeys, left on": csi(b">4;2m"),
        "printer (media copy)": csi(b"5i") + b"to the printer" + csi(b"4i") + csi(b"?5i") + csi(b"i"),
        "screen dump": csi(b"?1i") + ESC + b"#7",
        "Linux console": ESC + b"]P1ff0000" + BEL + ESC + b"]R" + BEL + csi(b"10;0]") + csi(b"11;9]"),
        "VT52 mode": csi(b"?2l") + ESC + b"Y  " + ESC + b"<",
        "locator (DECELR, DECRQLP)": csi(b"1;1'z") + csi(b"1'{") + csi(b"'|"),
    }.items()
]  # fmt: skip

# What a terminal answers: only with words of its own.
QUERY_ITEMS = [
    Item(f"query: {name}", data, answers=answers)
    for name, data, answers in [
        ("DA1", csi(b"c") + csi(b"0c"), rb"(\x1b\[\?1;2c){2}"),
        ("DA1, C1", b"\xc2\x9bc", rb"\x1b\[\?1;2c"),
        ("DA2", csi(b">c"), rb"\x1b\[>0;276;0c"),
        ("DA3", csi(b"=c"), b""),
        ("DECID", ESC + b"Z", b""),
        ("ENQ", b"\x05", b""),
        ("DSR", csi(b"5n"), rb"\x1b\[0n"),
        ("CPR", csi(b"6n") + csi(b"?6n"), CURSOR * 2),
        ("DSR, printer, keyboard, locator", b"".join(csi(b"?%dn" % n) for n in (15, 25, 26, 53, 55, 56, 62, 63, 75, 85, 996)), b""),
        ("DECRQM", csi(b"?1$p") + csi(b"4$p"), rb"\x1b\[\?1;2\$y\x1b\[4;2\$y"),
        ("DECRQM, endless number", csi(b"?" + b"9" * 99 + b"$p"), rb"\x1b\[\?\d{1,10};0\$y"),
        ("DECRQSS", dcs(b"$qm") + dcs(b"$qr") + dcs(b'$q"p') + dcs(b"$q q"), rb"(\x1bP1\$r[0-9;]+[mr\"pq ]+\x1b\\){4}"),
        ("DECRQSS, chosen text", dcs(b"$qreboot\r") + dcs(b"$q;reboot;m"), rb"(\x1bP0\$r\x1b\\){2}"),
        ("DECRSPS, DECRQPSR", csi(b"1$w") + csi(b"2$w") + dcs(b"1$treboot"), b""),
        ("DECRQTSR, DECRQUPSS", csi(b"1$u") + csi(b"2$u") + csi(b"&u"), b""),
        ("DECRQCRA", csi(b"1;1;1;1;1;1*y"), b""),
        ("DECREQTPARM", csi(b"x") + csi(b"1x"), b""),
        ("XTVERSION", csi(b">q") + csi(b">0q"), b""),
        ("XTGETTCAP", dcs(b"+q544e") + dcs(b"+q" + b"7265626f6f740d"), b""),
        ("XTSETTCAP", dcs(b"+p7265626f6f74"), b""),
        ("XTSMGRAPHICS", csi(b"?1;1;0S"), b""),
        ("kitty keyboard", csi(b"?u"), b""),
        ("modifyOtherKeys", csi(b"?4m"), b""),
        ("window", b"".join(csi(b"%dt" % n) for n in (11, 13, 14, 15, 16, 18, 19, 20, 21)), b""),
        ("window, with parameters", csi(b"13;2t") + csi(b"14;2t") + csi(b"20;0;0t"), b""),
        ("colour of the palette", osc(b"4;1;?"), rb"\x1b\]4;1;" + COLOUR),
        ("colours", osc(b"10;?") + osc(b"11;?") + osc(b"12;?"), b"".join(rb"\x1b\]%d;" % n + COLOUR for n in (10, 11, 12))),
        ("colour that was set", osc(b"4;1;rgb:7265/626f/6f74") + osc(b"4;1;?"), rb"\x1b\]4;1;" + COLOUR),
        ("colour, 20000 times in one", ESC + b"]4" + b";1;?" * 20_000 + BEL, b""),
        ("within another", csi(b"\x1b[6n") + csi(b"6\nn"), CURSOR * 2),
        ("around broken-off characters", b"\xf0\x9f\x98x\xe2\x82\x1b[\xe2\x826n\xf0\x9f\x98", b""),
        ("in a broken-off string", ESC + b"]2;" + csi(b"6n"), CURSOR),
    ]
]  # fmt: skip
QUERY_ITEMS += [Item("query: 2000 of them", b"", csi(b"c"), 2000, answers=rb"(\x1b\[\?1;2c){2000}")]

# To change the window, the keys, what a paste or a click types; to be left like that.
MODE_ITEMS = [
    Item(f"mode: {name}", data, answers=answers)
    for name, data, answers in [
        ("window ops", csi(b"2t") + csi(b"3;0;0t") + csi(b"4;1;1t") + csi(b"5t") + csi(b"6t") + csi(b"7t")
         + csi(b"8;1;1t") + csi(b"9;1t") + csi(b"10;1t") + csi(b"24t") + csi(b"1t"), b""),
        ("window ops, endless", csi(b"8;" + HUGE + b";" + HUGE + b"t") + csi(b"4;" + HUGE + b";1t"), b""),
        ("mouse, all kinds", _modes(b"9", b"1000", b"1001", b"1002", b"1003", b"1005", b"1006", b"1015", b"1016"), b""),
        ("focus", csi(b"?1004h"), rb"(\x1b\[[IO])*"),
        ("bracketed paste, its own end", csi(b"?2004h") + csi(b"201~") + csi(b"200~"), b""),
        ("cursor and keypad keys", _modes(b"1", b"66", b"1035", b"1036", b"1039") + ESC + b"=", b""),
        ("everything on", b"".join(csi(b"?%dh" % n) for n in range(1, 2100) if n != 1004), b""),
        ("ANSI modes", b"".join(csi(b"%dh" % n) for n in range(1, 40)), b""),
        ("DECCOLM", csi(b"?40h") + csi(b"?3h") + b"x" + csi(b"?3l"), b""),
        ("synchronised output, left on", csi(b"?2026h") + b"hidden", b""),
        ("cursor hidden, text invisible", csi(b"?25l") + csi(b"8m") + osc(b"10;#11141a"), b""),
        ("scroll region of one line, origin", csi(b"2;2r") + csi(b"?6h") + b"\r\n" * 100, b""),
        ("margins", csi(b"?69h") + csi(b"2;3s") + b"x" * 100, b""),
        ("line drawing", ESC + b"(0" + ESC + b")0\x0eqqq\x0f" + ESC + b"n" + ESC + b"~qqq", b""),
        ("other encodings", ESC + b"%@\xe4\xf6" + ESC + b"%G" + ESC + b"%/I" + ESC + b" G", b""),
        ("autowrap off", csi(b"?7l") + b"x" * 1000, b""),
        ("keyboard locked", csi(b"2h") + csi(b"12l") + csi(b"?8l"), b""),
        ("resets", csi(b"!p") + ESC + b"c" + csi(b"?5W") + csi(b"3g") + ESC + b"#8", b""),
    ]
]  # fmt: skip
MODE_ITEMS += [
    Item("mode: alternate screen, flood", b"", csi(b"?1049h") + csi(b"?1049l"), 1000),
    Item("mode: alternate screen, left on", csi(b"?1049h") + csi(b"?47h") + csi(b"?1047h")),
    Item("mode: resets, flood", b"", ESC + b"c", 1000),
    Item("mode: soft resets, flood", b"", csi(b"!p"), 5000),
    Item("mode: saved cursors, flood", b"", ESC + b"7" + csi(b"s"), 5000),
    Item("mode: bells", b"", BEL, 50_000),
]

# Loops, memory, and what is never ended.
ENDLESS_ITEMS = [
    Item(f"endless: CSI {HUGE.decode()} {final.decode()}", b"x" + csi(HUGE + final))
    for final in [bytes([code]) for code in b"@ABCDEFGHIJKLMPSTXZ`abdefgr"]
    + [b" @", b" A", b"'}", b"'~", b" q", b"$r"]
]
ENDLESS_ITEMS += [
    Item("endless: REP, flood", b"x", csi(HUGE + b"b"), 300),
    Item("endless: scrolls, flood", b"", csi(HUGE + b"S") + csi(HUGE + b"T"), 300),
    Item("endless: position", csi(HUGE + b";" + HUGE + b"H") + b"x" + csi(b"-1;-1H")),
    Item("endless: rectangles", csi(b"1;1;" + HUGE + b";" + HUGE + b";35$x") + csi(b"88;1;1;9999;9999$x")),
    Item("endless: 300000 parameters", ESC + b"[", b"1;", MEGA, b"m"),
    Item("endless: 300000 sub-parameters", ESC + b"[4", b":1", MEGA, b"m"),
    Item("endless: a number of 300000 digits", ESC + b"[", b"9", MEGA, b"A"),
    Item("endless: CSI without an end", ESC + b"[", b"1;", MEGA),
    Item("endless: intermediates", ESC + b"[", b"!", MEGA, b"p"),
    Item("endless: escapes alone", b"", ESC, MEGA),
    Item("endless: OSC without an end", ESC + b"]2;", b"unterminated", 250_000),
    Item("endless: OSC without a number", ESC + b"]", b"x", MEGA, BEL),
    Item("endless: DCS without an end", ESC + b"P$q", b"unterminated", 83_333),
    Item("endless: DCS that is answered", ESC + b"P$q", b"reboot;", 30_000, ST, rb"\x1bP0\$r\x1b\\"),
    Item("endless: APC without an end", ESC + b"_G", b"unterminated", 20_000),
    Item("endless: SOS without an end", ESC + b"X", b"unterminated", 20_000),
    Item("endless: C1 OSC without an end", b"\xc2\x9d2;", b"unterminated", 20_000),
    Item("endless: colours set in one", ESC + b"]4", b";1;#123456", 30_000, BEL),
    Item("endless: colours reset in one", ESC + b"]104", b";1", 100_000, BEL),
    Item("endless: colours reset, flood", b"", osc(b"104"), 1000),
    Item("endless: marks on one letter", b"a", "\u0301".encode(), 150_000),
    Item("endless: marks on every letter", b"", b"a" + "\u0301\u0316\u0338".encode() * 16, 1000),
    Item("endless: marks without a letter", csi(b"H"), "\u0301".encode(), 10_000),
    Item("endless: zero-width joiners", b"", "\U0001f468\u200d".encode(), 10_000),
    Item("endless: variation selectors", b"x", "\ufe0f\U000e0100".encode(), 10_000),
    Item("endless: wide characters", b"", "\u4e2d\uff21".encode(), 20_000),
    Item("endless: one line", b"", b"a very long line ", 40_000),
    Item("endless: a colour each", b"", csi(b"38;2;1;2;3m") + b"x" + csi(b"48;2;4;5;6m") + b"y", 5000),
    Item("endless: tabs", b"", b"\t", 100_000),
    Item("endless: line ends", b"", b"\n", 20_000),
    Item("endless: backspaces", b"", b"\b", 100_000),
]  # fmt: skip

# What is no text.
BYTE_ITEMS = [
    Item(f"bytes: {name}", data)
    for name, data in {
        "C1, raw": bytes(range(0x80, 0xA0)),
        "C1, UTF-8": b"".join(chr(code).encode() + b"x" for code in range(0x80, 0xA0)),
        "C1 CSI, OSC, DCS, raw": b"\x9b6n\x9d52;c;?\x9c\x90$qm\x9c",
        "C0": bytes(code for code in range(0x20) if code != 5),
        "NULs": bytes(10_000),
        "DEL": b"\x7f" * 100,
        "overlong": b"\xc0\x80\xc1\xbf\xe0\x80\x9b\xf0\x80\x80\x9b\xc0\x9b6n\xe0\x9f\xbf",
        "overlong escape": b"\xc0\x9b\xe0\x80\x9b]52;c;?\x07",
        "surrogates": b"\xed\xa0\x80\xed\xbf\xbf\xed\xa0\xbd\xed\xb8\x80",
        "beyond Unicode": b"\xf4\x90\x80\x80\xf5\x80\x80\x80\xf8\x88\x80\x80\x80\xfc\x84\x80\x80\x80\x80",
        "0xfe and 0xff": b"\xfe\xff\xff\xfe" * 100,
        "lone continuations": bytes(range(0x80, 0xC0)) * 10,
        "BOMs and non-characters": "\ufeff\ufffe\uffff\U0010ffff\ufdd0".encode() * 100,
        "right-to-left": "\u202e\u2067[notice]\u202c\u2069\u200f\u061c".encode(),
        "line separators": "\u2028\u2029\u0085".encode(),
        "tags": "".join(chr(0xE0000 + code) for code in b"hidden").encode(),
        "private use": "\ue000\uf8ff\U000f0000".encode() * 100,
    }.items()
]  # fmt: skip
# Random ones ask something now and then; whatever it is, only such answers may come.
_ANSWER = b"|".join(
    [CURSOR, rb"\x1b\[[?>]?[\d;]*[cn]", rb"\x1b\[\??\d+;\d\$y", rb"\x1b\]\d+(;\d+)?;" + COLOUR,
     rb"\x1bP[01]\$r[\d;]*[mrpq\" ]*\x1b\\", rb"\x1b\[[IO]"]
)  # fmt: skip
BYTE_ITEMS += [
    Item("bytes: random", _random.randbytes(65_536), answers=rb"(%b)*" % _ANSWER),
    Item(
        "bytes: random escapes",
        b"".join(
            _random.choice([b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b", b"\x9b", b"\xc2\x9b"])
            + bytes(_random.choices(b"0123456789;:?>=!$'\" mhlnctqrpSTLMb@PX\\\x07\x18x", k=9))
            for _ in range(6000)
        ),
        answers=rb"(%b)*" % _ANSWER,
    ),
]

CORPUS = [
    *CLIPBOARD_ITEMS, *TITLE_ITEMS, *LINK_ITEMS, *EXTENSION_ITEMS,
    *QUERY_ITEMS, *MODE_ITEMS, *ENDLESS_ITEMS, *BYTE_ITEMS,
]  # fmt: skip
"""All of it."""

RESET = (
    CAN + ST + csi(b"?2026l") + csi(b"?1049l") + osc(b"104") + osc(b"110") + osc(b"111") + osc(b"112")
    + ESC + b"c"
)  # fmt: skip
"""What a person's ``reset`` does, and the colours: ends what was begun, then starts afresh."""

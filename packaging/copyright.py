"""Writes debian/copyright (DEP-5) of what a package brings: our licence, and that of each library.

usage: packaging/copyright.py SITE_PACKAGES    the directory of the staged environment

Licences are as the libraries' metadata names them; their texts are in the package already.
"""

import importlib.metadata
import pathlib
import re
import sys

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: serial-console

Files: *
Copyright: 2026 The serial console's authors
License: Apache-2.0
 On Debian systems the text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
"""
OLD_NAMES = {
    "Apache 2": "Apache-2.0",
    "LGPLv3": "LGPL-3.0-only",
    "LGPL-v2.0-or-later": "LGPL-2.0-or-later",
}
"""What ``License`` of the metadata says where there is no ``License-Expression``."""
DEBIAN_NAMES = (
    (r"\bMIT\b(?!-)", "Expat"),
    (r"-Clause\b", "-clause"),
    (r"(GPL-\d(?:\.[1-9])?)(?:\.0)?-or-later\b", r"\1+"),
    (r"(GPL-\d(?:\.[1-9])?)(?:\.0)?-only\b", r"\1"),
    (" AND ", " and "),
    (" OR ", " or "),
)
COPYRIGHT = re.compile(
    r"^\W*Copyright:?\s+(?:\(c\)\s*|©\s*)?(.*\d{4}.*)$", re.IGNORECASE | re.MULTILINE
)

TEXT = re.compile("licen[sc]e|copying|notice", re.IGNORECASE)
"""Names of files with a licence's text."""


def licence(library: importlib.metadata.Distribution) -> str:
    """Return the SPDX expression of a library's licence."""
    expression = library.metadata["License-Expression"]
    if expression:
        return str(expression)
    said = library.metadata["License"] or ""
    return OLD_NAMES.get(said, said)


def debian_name(expression: str) -> str:
    """Return an SPDX expression in Debian's words."""
    for pattern, name in DEBIAN_NAMES:
        expression = re.sub(pattern, name, expression)
    return expression


def holders(texts: list[str], author: str) -> list[str]:
    """Return who has the copyright, by the licences' texts, or else by the metadata."""
    found = [one.strip() for text in texts for one in COPYRIGHT.findall(text)]
    found = [one for one in found if "Free Software Foundation" not in one]  # of the licence itself
    return list(dict.fromkeys(found)) or [author]


def paragraph(files: list[str], owners: list[str], expression: str, where: list[str]) -> str:
    """Return a paragraph on some files."""
    lines = [
        "Files: " + "\n ".join(files),
        "Copyright: " + "\n ".join(owners),
        f"License: {debian_name(expression)}",
        " The text is in this package:",
        *(f" {one}" for one in where),
    ]
    return "\n".join(lines) + "\n"


def libraries(site: pathlib.Path) -> list[importlib.metadata.Distribution]:
    """Return what is in the environment, but for ourselves."""
    found = importlib.metadata.distributions(path=[str(site)])
    return sorted(
        (one for one in found if one.name != "serial-console"), key=lambda one: one.name.lower()
    )


def of_library(library: importlib.metadata.Distribution, site: pathlib.Path) -> str:
    """Return the paragraph of a library."""
    there = [one for one in library.files or [] if (site / one).is_file() and ".." not in one.parts]
    tops = {f"{one.parts[0]}/*" if len(one.parts) > 1 else one.parts[0] for one in there}
    tops.discard("__pycache__/*")
    texts = [one for one in there if ".dist-info" in one.parts[0] and TEXT.search(one.name)]
    if not texts or not licence(library):
        sys.exit(f"copyright: {library.name} has no licence in its metadata")
    author = library.metadata["Author"] or library.metadata["Author-email"]
    return paragraph(
        [f"*/site-packages/{one}" for one in sorted(tops)],
        holders(
            [(site / one).read_text("utf-8", "replace") for one in texts],
            author or f"The authors of {library.name}",
        ),
        licence(library),
        [f"{installed(site)}/{one}" for one in texts],
    )


def installed(site: pathlib.Path) -> str:
    """Return where the environment will be."""
    return "/usr/lib/" + str(site.resolve()).rpartition("/usr/lib/")[2]


def main() -> None:
    """Write it all on stdout."""
    site = pathlib.Path(sys.argv[1])
    page = site / "serial_console/web/vendor"
    texts = sorted(page.glob("*.LICENSE"))
    xterm = paragraph(
        ["*/serial_console/web/vendor/*"],
        holders([one.read_text("utf-8") for one in texts], "The xterm.js authors"),
        "MIT",
        [f"{installed(page)}/{one.name}" for one in texts],
    )
    paragraphs = [HEAD, *(of_library(library, site) for library in libraries(site)), xterm]
    sys.stdout.write("\n".join(paragraphs))


if __name__ == "__main__":
    main()

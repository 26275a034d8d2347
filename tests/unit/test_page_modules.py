"""The page's modules: what the browser fetches first, and what is documented of them."""

import os
import re

from tests import node

IMPORT = re.compile(r"^(?:import|export)\b[^;]*?from '(\./[^']+)';", re.MULTILINE)


def test_all_modules_of_the_page_are_fetched_at_once():
    """Each import would be found only in the file that has it, a round trip after the other."""
    with open(f"{node.WEB}/serial.html", encoding="utf-8") as file:
        page = file.read()
    preloaded = re.findall(r'<link rel="modulepreload" href="([^"]+)">', page)
    needed, todo = set(), ["serial.js"]
    while todo:
        with open(f"{node.WEB}/{todo.pop()}", encoding="utf-8") as file:
            found = {name.removeprefix("./") for name in IMPORT.findall(file.read())}
        todo += [name for name in found - needed if not name.startswith("vendor/")]
        needed |= found
    assert sorted(preloaded) == sorted(needed)


def test_every_parameter_of_the_page_is_documented():
    with open(f"{node.WEB}/params.js", encoding="utf-8") as file:
        code = file.read()
    built_in = re.search(r"^const BUILT_IN = \{(.*?)^\};", code, re.MULTILINE | re.DOTALL)
    page = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "page.md")
    with open(page, encoding="utf-8") as file:
        rows = [line.split("|")[1] for line in file if line.startswith("| `")]
    documented = re.findall(r"`(\w+)`", "".join(rows))
    operators = ["connect_origins", "token_subprotocol"]  # docs/operating.md
    assert sorted(documented + operators) == sorted(
        re.findall(r"^  (\w+):", built_in[1], re.MULTILINE)
    )

"""The documents build as a site, what they name is there, and what they tell to type is run."""

from __future__ import annotations

import argparse
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from serial_console import cli, config, errors

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
READABLE = [*PAGES, "README.md"]
TYPED = {"sh", "bash", "shell", "console"}
NAMED = sorted(
    set(re.findall(r"`(\w+/\w+\.py)::(\w+)`", (ROOT / "docs/security.md").read_text("utf-8")))
)
ELSEWHERE = re.compile(
    rb"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["']?(?:https?:)?//"""
    rb"""|url\(\s*["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
)


def tokens(page: str) -> list[Token]:
    return MarkdownIt().enable("table").parse((ROOT / page).read_text("utf-8"))


def blocks(page: str) -> Iterator[tuple[Token, Token | None]]:
    """Yield each block of code, with what stands before it."""
    before = None
    for token in tokens(page):
        if token.type in {"fence", "code_block"}:
            yield token, before
        before = token


def commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command, groups of them too, as it is typed."""
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from commands(sub)


def leaf(parser: argparse.ArgumentParser) -> bool:
    """Tell whether a command has none below it."""
    return not any(isinstance(one, argparse._SubParsersAction) for one in parser._actions)


def test_the_attacks_are_listed() -> None:
    assert len(NAMED) > 50


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_attack_is_shown_by_a_test_that_exists(path: str, name: str) -> None:
    text = (ROOT / "tests" / path).read_text("utf-8")
    assert re.search(rf"^ *def {name}\(", text, re.MULTILINE)


@pytest.mark.parametrize("page", READABLE)
def test_no_command_shows_a_key_in_the_list_of_processes(page: str) -> None:
    for block, _ in blocks(page):
        if block.info.strip() in TYPED:
            for command in re.split(r"[|;\n]\s*", block.content.replace("\\\n", " ")):
                assert not re.match(r"curl\b.*\$(KEY|\()", command), command


@pytest.fixture(scope="module")
def tests() -> list[str]:
    """All tests' texts."""
    return [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]


def names(test: str, page: str, block: str) -> bool:
    """Tell whether a test names a block, and the page that it is on."""
    return f'"{page}"' in test.replace("'", '"') and f'"{block}"' in test.replace("'", '"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What ``make docs`` and ``make man`` build; a warning is an error."""
    directory = tmp_path_factory.mktemp("site")
    build(directory, "html", directory / "html")
    build(directory, "man", directory / "man")
    return directory


class TestBlocks:
    """So that nothing that is to be typed escapes the tests."""

    @pytest.mark.parametrize("page", READABLE)
    def test_what_is_to_be_typed_has_a_name_and_a_test_that_types_it(
        self, page: str, tests: list[str]
    ) -> None:
        for token, before in blocks(page):
            language = (token.info.split() or [""])[0]
            if token.type != "fence" or language not in TYPED:
                continue
            line = f"{page}:{(token.map or [0])[0] + 1}"
            said = before.content if before and before.type == "html_block" else ""
            name = re.fullmatch(r"<!-- block: ([\w-]+) -->\n", said)
            assert name, f"{line}: the line before the fence must be <!-- block: NAME -->"
            typed = any(names(test, page, name[1]) for test in tests)
            assert typed, f"{line}: no test runs {name[1]}"

    @pytest.mark.parametrize("page", READABLE)
    def test_every_block_says_what_it_is(self, page: str) -> None:
        for token, _ in blocks(page):
            line = f"{page}:{(token.map or [0])[0] + 1}"
            if token.type == "fence":
                assert token.info, f"{line}: which language? (text, where none)"
            else:
                # The module lists, which are no code.
                assert page == "docs/architecture.md", f"{line}: fence it, do not indent it"


class TestCommands:
    """The manual is made from the arguments; this is what they must have for that."""

    @pytest.mark.parametrize(("command", "parser"), [*commands(cli.parser())])
    def test_every_argument_says_what_it_is(
        self, command: str, parser: argparse.ArgumentParser
    ) -> None:
        assert parser.description, command
        for action in parser._actions:
            sub = isinstance(action, argparse._SubParsersAction)
            assert sub or action.help, f"{command}: {action.dest} has no help"

    @pytest.mark.parametrize("command", [name for name, one in commands(cli.parser()) if leaf(one)])
    def test_every_command_is_shown_where_it_is_typed(self, command: str) -> None:
        shown = [
            token.content
            for page in READABLE
            for token, _ in blocks(page)
            if token.info.split()[:1] == ["sh"]
        ]
        assert re.search(rf"^[^#]*\b{command}\b", "\n".join(shown), re.MULTILINE), (
            f"no page shows how {command} is used; docs/cli.md has examples"
        )

    @pytest.mark.parametrize("page", [*READABLE, "SECURITY.md", "tests/README.md"])
    def test_what_is_named_within_a_sentence_is_there(self, page: str) -> None:
        named = [name.removeprefix("serial-console ") for name, _ in commands(cli.parser())]
        makefile = (ROOT / "Makefile").read_text("utf-8")
        said = [child for token in tokens(page) for child in token.children or ()]
        for code in (child.content for child in said if child.type == "code_inline"):
            program, *arguments = code.split()[:2] or [""]
            if program == "serial-console" and arguments and arguments[0].isalpha():
                assert arguments[0] in named, f"{page}: there is no {code}"
            if program == "make" and arguments:
                target = rf"^{re.escape(arguments[0])}:"
                assert re.search(target, makefile, re.MULTILINE), f"{page}: there is no {code}"


@pytest.mark.parametrize("page", READABLE)
def test_configurations_are_right(page: str, tmp_path: pathlib.Path) -> None:
    for token, _ in blocks(page):
        if token.type == "fence" and token.info == "toml":
            (tmp_path / "config.toml").write_text(token.content)
            config.load(str(tmp_path / "config.toml"))


class TestLinks:
    """Those of the site are checked by Sphinx; these are read where the source is."""

    @pytest.mark.parametrize("page", ["README.md", "SECURITY.md", "tests/README.md"])
    def test_what_is_linked_is_there(self, page: str) -> None:
        inline = (child for token in tokens(page) for child in token.children or ())
        for link in inline:
            target, _, anchor = str(link.attrGet("href") or "").partition("#")
            if not target or "://" in target:
                continue
            there = (ROOT / page).parent / target
            assert there.exists(), f"{page}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.MULTILINE)
                slugs = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in heads]
                assert anchor in slugs, f"{page}: {target}#{anchor}"


class TestSite:
    def test_it_loads_nothing_from_elsewhere(self, site: pathlib.Path) -> None:
        found = [path for path in (site / "html").rglob("*") if path.suffix in {".html", ".css"}]
        assert len(found) > 15
        for path in found:
            assert not ELSEWHERE.search(path.read_bytes()), path

    def test_rest_s_requests_and_problems_are_all_there(self, site: pathlib.Path) -> None:
        page = text_of(site / "html" / "rest.html")
        for said in ("POST /v1/guests/{guest}/tokens", "resume", "0 to 3600", "libvirt_denied"):
            assert said in page
        ours = (ROOT / "serial_console" / name for name in ("problems.py", "access.py"))
        codes = {code for path in ours for code in _codes(path.read_text("utf-8"))}
        assert codes >= {"too_large", "internal_error", "not_found"}
        for code in codes | {errors.InUse.code}:
            assert code in page, f"docs/rest.md does not name {code}"

    def test_the_manual_has_each_command_with_its_example(self, site: pathlib.Path) -> None:
        done = subprocess.run(
            ["man", "--warnings", "-l", site / "man" / "serial-console.1"],
            capture_output=True,
            text=True,
            timeout=30,
            env={"LC_ALL": "C.UTF-8", "MANWIDTH": "120", "PATH": "/usr/bin:/bin"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        for said in ("serial-console token", "--takeover", "EXIT STATUS", "FILES"):
            assert said in done.stdout


def build(directory: pathlib.Path, builder: str, to: pathlib.Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    done = subprocess.run(
        [*command, "-b", builder, "-d", directory / "doctrees", ROOT / "docs", to],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")


def text_of(page: pathlib.Path) -> str:
    return re.sub(r"<[^>]*>", "", page.read_text("utf-8"))


def _codes(source: str) -> list[str]:
    """Return the codes of problems that a module makes by itself."""
    return re.findall(r'(?:problem\(|\d+: \()\s*(?:\d+,\s*)?"(\w+)"', source)

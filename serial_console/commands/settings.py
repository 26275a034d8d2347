"""``config``: the configuration."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import msgspec

from .. import config
from ..errors import ConfigError
from ..names import printable
from ..output import say
from . import Commands


def add(commands: Commands) -> None:
    """Add them."""
    group = commands.group("config", "check or show the configuration")
    group.add("check", _check, "say whether the configuration is right")
    group.add("show", _show, "print every setting as it is in force, and where it comes from")


def _check(options: argparse.Namespace) -> int:
    wrong = config.mistakes(options.config)
    for mistake in wrong[:-1]:
        sys.stderr.write(f"serial-console: {printable(mistake)}\n")
    if wrong:
        raise ConfigError(wrong[-1])
    path = config.found(options.config)
    say(f"{path}: ok" if path else f"{config.SYSTEM_FILE}: not there; the defaults are ok")
    return 0


def _show(options: argparse.Namespace) -> int:
    settings: dict[str, dict[str, Any]] = msgspec.to_builtins(config.load(options.config))
    origins = config.origins(options.config)
    tables = []
    for name, section in settings.items():
        # The strings, numbers and lists that we have are written alike in TOML and JSON.
        keys = [
            f"{key} = {json.dumps(value, ensure_ascii=False)}  "
            f"# {printable(origins.get((name, key), 'default'))}"
            for key, value in section.items()
        ]
        tables.append("\n".join([f"[{name}]", *keys]))
    say("\n\n".join(tables))
    return 0

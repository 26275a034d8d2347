"""What SIGHUP means to a running service; its configuration, which is read again by it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Collection
from enum import Enum, auto

import msgspec

from . import config, log
from .config import Config
from .errors import ConfigError

RESTART = {
    "libvirt.uri",
    "paths.consoles",
    "paths.control",
    "paths.api",
    "gateway.listen",
    "gateway.tls_cert",
    "gateway.tls_key",
    "gateway.insecure",
    "api.listen",
    "api.keys",
    "tokens.store",
    "log.audit",
}
"""Keys that a running service keeps as they were when it started; config.toml marks them."""

logger = logging.getLogger("config")


class Hangup(Enum):
    """What SIGHUP means: to read the configuration again, to end, or nothing."""

    RELOAD = auto()
    END = auto()
    NOTHING = auto()


def hangup() -> Hangup:
    """Return what SIGHUP means to this process; to be asked before SIGHUP has a handler.

    Who was started in a terminal gets it when that is closed, and ends with it, unless they are
    under nohup(1). Where there is no terminal, as under systemd, somebody asks for a reload.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return Hangup.RELOAD
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return Hangup.NOTHING if ignored else Hangup.END


class Current:
    """The configuration in force.

    Args:
        config: as it was at the start.
        path: where from, as config.load() takes it.
        tables: those that this service uses.
    """

    def __init__(
        self, config: Config, path: str | None = None, tables: Collection[str] = ()
    ) -> None:
        self.config = config
        self._path = path
        self._tables = tables
        self._hangup = hangup()

    def hang_up(self) -> bool:
        """Do what SIGHUP means. It ends us as SIGTERM does, or it has the file read again: then it
        is logged what changed, and what waits for a restart.

        Returns:
            Whether anything changed; not where the file cannot be used, which is logged: then all
            stays as it was.
        """
        if self._hangup is not Hangup.RELOAD:
            if self._hangup is Hangup.END:
                logger.info("the terminal that this was started in is closed: ending")
                os.kill(os.getpid(), signal.SIGTERM)
            return False
        try:
            new = config.load(self._path)
        except ConfigError as error:
            logger.error("the configuration was not read again, the former one stays: %s", error)
            return False
        changed = {
            f"{table}.{key}"
            for table in self._tables
            for key in getattr(new, table).__struct_fields__
            if getattr(getattr(new, table), key) != getattr(getattr(self.config, table), key)
        }
        self.config = _kept(new, self.config)
        if {"log.level", "log.format"} & changed:
            log.start(self.config.log.level, self.config.log.format)
        told = [
            f"{', '.join(sorted(keys))} {what}"
            for keys, what in ((changed - RESTART, "in force"), (changed & RESTART, "at a restart"))
            if keys
        ]
        logger.info("the configuration was read again: %s", "; ".join(told) or "nothing changed")
        return bool(changed - RESTART)


def _kept(new: Config, old: Config) -> Config:
    """Return the new configuration with what a restart alone can change as it was."""
    for name in sorted(RESTART):
        table, key = name.split(".")
        section = msgspec.structs.replace(
            getattr(new, table), **{key: getattr(getattr(old, table), key)}
        )
        new = msgspec.structs.replace(new, **{table: section})
    return new

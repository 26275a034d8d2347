"""``run``, ``supervisor``, ``gateway``, ``api``, ``demo``: what stays until it is told to end."""

from __future__ import annotations

import argparse

from .. import config, log
from ..errors import SetupError
from ..reload import Current
from . import Commands


def add(commands: Commands) -> None:
    """Add them."""
    commands.add("run", _run, "run supervisor, gateway and api together in the foreground")
    commands.add("supervisor", _supervisor, "run the supervisor, which starts and watches relays")
    commands.add("gateway", _gateway, "run the gateway, where browsers connect")
    commands.add("api", _api, "run the REST interface")
    commands.add("demo", _demo, "build and start a guest to try it all with")


def _supervisor(options: argparse.Namespace) -> int:
    from ..supervisor import serve

    return serve(_current(options, "libvirt", "paths", "tokens", "session", "limits", "log"))


def _gateway(options: argparse.Namespace) -> int:
    from ..gateway import serve

    return serve(_current(options, "gateway", "paths", "log"), config.directory(options.config))


def _api(options: argparse.Namespace) -> int:
    try:
        from ..api_server import serve
    except ModuleNotFoundError as error:
        raise SetupError(
            f"the package {error.name} is missing, which the API needs; "
            "run: pip install 'serial-console[api]'"
        ) from None
    return serve(_current(options, "api", "gateway", "paths", "limits", "log"))


def _run(options: argparse.Namespace) -> int:
    from .. import run

    _service_config(options)
    return run.run(run.services(options.config))


def _current(options: argparse.Namespace, *tables: str) -> Current:
    return Current(_service_config(options), options.config, tables)


def _service_config(options: argparse.Namespace) -> config.Config:
    settings = config.load(options.config)
    log.start(settings.log.level, settings.log.format)
    return settings


def _demo(options: argparse.Namespace) -> int:
    from ..demo.demo import main as demo_main

    return demo_main(options.config)

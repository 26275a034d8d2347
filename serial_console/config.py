"""The configuration: one TOML file, every key with a default, every mistake with its line."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from .control import TTL_MAX
from .errors import ConfigError, os_reason
from .names import printable, shown

SYSTEM_FILE = "/etc/serial-console/config.toml"
"""Read where neither ``--config`` nor ``$SERIAL_CONSOLE_CONFIG`` names another file."""
FILE_MAX = 16384
"""Characters of a configuration; one with everything in it has 2000. More can keep tomllib busy:
a key of 16000 parts took it 10 s."""
INT_MAX = (1 << 31) - 1
"""The largest number; times of more seconds than that break timers and floats."""
SHOWN_MAX = 200
"""Characters of a mistake that are repeated."""

Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)]


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A table of the file."""


class Libvirt(Section, frozen=True):
    """``[libvirt]``: which libvirt."""

    uri: str = ""


class Paths(Section, frozen=True):
    """``[paths]``: directories of the sockets."""

    consoles: str = ""
    control: str = ""
    api: str = ""

    @property
    def redeem(self) -> str:
        """The socket where the gateway redeems tokens."""
        return os.path.join(self.control, "redeem.sock")

    @property
    def admin(self) -> str:
        """The socket where API and command line do the rest."""
        return os.path.join(self.control, "admin.sock")

    @property
    def relays(self) -> str:
        """The directory where a new supervisor finds the relays of the one before."""
        return os.path.join(self.control, "relays")

    @property
    def api_socket(self) -> str:
        """The unix socket of the REST interface."""
        return os.path.join(self.api, "api.sock")


class Gateway(Section, frozen=True):
    """``[gateway]``: where browsers connect. Times are in seconds; ``heartbeat`` 0 for none."""

    listen: str = "127.0.0.1:6083"
    public_url: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    allowed_origins: list[str] = []
    connect_origins: list[str] = []
    trusted_proxies: list[str] = []
    heartbeat: Count = 10
    handshake_timeout: Positive = 10
    max_unauthenticated: Positive = 100


class Api(Section, frozen=True):
    """``[api]``: where the host manager connects. ``rate``: requests a second of one caller."""

    listen: str = "127.0.0.1:6084"
    keys: str = ""
    peer_uids: list[Count] = []
    rate: Count = 20


class Tokens(Section, frozen=True):
    """``[tokens]``: ``ttl`` is a token's life in seconds."""

    ttl: Annotated[int, msgspec.Meta(ge=1, le=TTL_MAX)] = 30
    store: Literal["memory"] = "memory"


class Session(Section, frozen=True):
    """``[session]``: times in seconds (0 = never), ``replay`` and ``backlog`` in bytes."""

    escape: str = "ctrl-q"
    idle_timeout: Count = 600
    max_session: Count = 0
    on_guest_stop: Literal["wait", "close"] = "wait"
    notices: bool = True
    replay: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 65536
    backlog: Annotated[int, msgspec.Meta(ge=65536, le=1 << 26)] = 262144


class Limits(Section, frozen=True):
    """``[limits]``: sessions in all, sessions per user, watchers per console, tokens alive."""

    sessions: Positive = 1000
    per_user: Positive = 50
    # A relay tells of all its sessions in one line.
    watchers: Annotated[int, msgspec.Meta(ge=0, le=50)] = 20
    tokens: Positive = 10000


class Log(Section, frozen=True):
    """``[log]``: how much and how; ``audit``: the file of the audit log, ``""`` for none."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    audit: str = ""


class Config(Section, frozen=True):
    """The whole file; what it leaves out has its default."""

    libvirt: Libvirt = Libvirt()
    paths: Paths = Paths()
    gateway: Gateway = Gateway()
    api: Api = Api()
    tokens: Tokens = Tokens()
    session: Session = Session()
    limits: Limits = Limits()
    log: Log = Log()


def load(path: str | None = None) -> Config:
    """Read the configuration and fill in the defaults of this user.

    Args:
        path: the file, or None for ``$SERIAL_CONSOLE_CONFIG``, else SYSTEM_FILE if it exists.

    Raises:
        ConfigError: the file cannot be read, is not TOML, has an unknown key, a value of the wrong
            type or one that makes no sense; the message names file, line and key.
    """
    path = _found(path)
    if path is None:
        return _completed(Config(), "the defaults")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(FILE_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {os_reason(error)}; "
            "name a readable file with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    return parse(text, path)


def directory(path: str | None = None) -> str:
    """Return where the file is that ``load`` reads, or would be: others may stand beside it."""
    return os.path.dirname(os.path.abspath(_found(path) or SYSTEM_FILE))


def _found(path: str | None) -> str | None:
    path = path or os.environ.get("SERIAL_CONSOLE_CONFIG")
    return SYSTEM_FILE if path is None and os.path.exists(SYSTEM_FILE) else path


def parse(text: str, path: str) -> Config:
    """Read the configuration from text; ``path`` is for the messages. Raises as load() does."""
    if len(text) > FILE_MAX:
        raise ConfigError(f"{path} has over {FILE_MAX} characters; name a configuration file")
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number without end, endless nesting
        why = shown(str(error), SHOWN_MAX)
        raise ConfigError(f"{path} is not valid TOML: {why}; correct that line") from error
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise _explained(str(error), text, path) from error
    for section, values in data.items():
        for key, value in values.items():
            if any(one != printable(one) for one in _strings(value)):
                raise _wrong("has a control or invisible character", [section, key], text, path)
    return _completed(config, path)


def _strings(value: object) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [one for one in found if isinstance(one, str)]


def escape_byte(text: str) -> bytes:
    """Return the byte of an escape key written as ``ctrl-q`` or ``^q``; ``""`` gives none.

    Raises:
        ConfigError: it is no such key.
    """
    if text == "":
        return b""
    key = re.fullmatch(r"(?:ctrl-|\^)([a-z@\[\\\]^_])", text, re.IGNORECASE | re.ASCII)
    if key is None:
        raise ConfigError(
            f'escape is "{shown(text)}", which is no control key; '
            'write "ctrl-q", "ctrl-]" or "" for none'
        )
    return bytes([ord(key[1].upper()) & 0x1F])


def escape_name(key: bytes) -> str:
    """Return an escape key as ``escape_byte`` reads it."""
    return f"ctrl-{chr(key[0] | 0x40).lower()}" if key else ""


def address(listen: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``. Port 0 lets the kernel choose.

    Raises:
        ConfigError: it is not of that form.
    """
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:]+)):([0-9]{1,5})", listen)
    if found is None or int(found[3]) > 65535 or not _is_host(found[1] or found[2]):
        raise ConfigError(f'listen is "{shown(listen)}"; write host:port, such as "127.0.0.1:6083"')
    return found[1] or found[2], int(found[3])


def networks(addresses: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return ``gateway.trusted_proxies`` parsed: addresses and networks.

    Raises:
        ConfigError: one of them is neither.
    """
    found = []
    for text in addresses:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise ConfigError(
                f'gateway.trusted_proxies has "{text}": {error}; '
                'write addresses and networks, such as "192.0.2.7" or "10.0.0.0/8"'
            ) from error
    return found


def _check_urls(gateway: Gateway) -> None:
    """Raise ConfigError when public_url is no URL, or an origin not as browsers write it."""
    url = gateway.public_url
    if url and not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", url):
        raise ConfigError(
            f'gateway.public_url is "{url}"; '
            'write the URL that browsers use, such as "https://host.example/console"'
        )
    _check_port("public_url", url)
    for key in ("allowed_origins", "connect_origins"):
        for origin in getattr(gateway, key):
            if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", origin):
                raise ConfigError(
                    f'gateway.{key} has "{origin}"; write scheme, host in lower case and port '
                    'as browsers do, such as "https://host.example" or "https://host.example:8443"'
                )
            _check_port(key, origin)


def _check_port(key: str, url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise ConfigError(f'gateway.{key} has "{shown(url)}", which is no URL: {error}') from error


def _is_host(text: str) -> bool:
    try:
        text.encode("idna")  # as looking it up does
    except UnicodeError:
        return False
    return True


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _completed(config: Config, path: str) -> Config:
    """Fill in what depends on who runs us, and check what one key says of another."""
    try:
        escape_byte(config.session.escape)
        for name in ("gateway", "api"):
            host, _ = address(getattr(config, name).listen)
            if _loopback(host):
                continue
            if name == "api":
                raise ConfigError(
                    f'api.listen is "{config.api.listen}", which is not loopback; the API speaks '
                    "plain HTTP: listen on 127.0.0.1 and put a TLS proxy in front"
                )
            if not config.gateway.tls_cert and not config.gateway.insecure:
                raise ConfigError(
                    f'gateway.listen is "{config.gateway.listen}", which is not loopback, without '
                    "TLS; set tls_cert and tls_key, or insecure = true if a TLS proxy is in front"
                )
        networks(config.gateway.trusted_proxies)
        _check_urls(config.gateway)
        if bool(config.gateway.tls_cert) != bool(config.gateway.tls_key):
            raise ConfigError("gateway.tls_cert and gateway.tls_key go together; set both or none")
        if config.log.audit and not os.path.isabs(config.log.audit):
            raise ConfigError(
                f'log.audit is "{config.log.audit}"; write a whole path, '
                'such as "/var/log/serial-console/audit.log"'
            )
    except ConfigError as error:
        raise ConfigError(f"{path}: {shown(str(error), 2 * SHOWN_MAX)}") from error
    system = os.geteuid() == 0 or path == SYSTEM_FILE  # the services' users, operators
    run = "/run" if system else _user_run(config)
    base = run if system else os.path.join(run, "serial-console")
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    etc = "/etc/serial-console" if system else os.path.join(home, "serial-console")
    return msgspec.structs.replace(
        config,
        libvirt=Libvirt(
            uri=config.libvirt.uri or ("qemu:///system" if system else "qemu:///session")
        ),
        paths=Paths(
            consoles=config.paths.consoles or os.path.join(base, "console"),
            control=config.paths.control
            or os.path.join(base, "serial-console" if system else "control"),
            api=config.paths.api or os.path.join(base, "serial-console-api" if system else "api"),
        ),
        api=msgspec.structs.replace(
            config.api, keys=config.api.keys or os.path.join(etc, "api-keys")
        ),
    )


def _user_run(config: Config) -> str:
    """Return an ordinary user's runtime directory; it matters only where a path is unset."""
    given = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    paths = config.paths
    if not os.path.isdir(given) and not (paths.consoles and paths.control and paths.api):
        raise ConfigError(
            f"there is no runtime directory {given} for this user; "
            "set XDG_RUNTIME_DIR, or paths.consoles, paths.control and paths.api in the config"
        )
    return given


def _explained(message: str, text: str, path: str) -> ConfigError:
    """Turn msgspec's message into one that names the file, the line and the key."""
    what, _, where = message.partition(" - at `")
    keys = [re.sub(r"\[.*", "", key) for key in where.strip("`").split(".")[1:]]
    unknown = re.fullmatch(r"Object contains unknown field `(.+)`", what, re.DOTALL)
    if unknown:
        keys.append(unknown[1])
        known = Config if len(keys) == 1 else _section(keys[0])
        names = ", ".join(known.__struct_fields__) if known else ""
        what = f"unknown key; known here are: {names}"
    else:
        what = what.replace("`", "")
    return _wrong(what, keys, text, path)


def _wrong(what: str, keys: list[str], text: str, path: str) -> ConfigError:
    key = shown(".".join(keys), SHOWN_MAX)
    return ConfigError(f"{path}, line {_line(text, keys)}, key {key}: {shown(what, SHOWN_MAX)}")


def _section(name: str) -> type[Section] | None:
    default = getattr(Config(), name, None)
    return type(default) if isinstance(default, Section) else None


def _line(text: str, keys: list[str]) -> int:
    """Find the line of a key; a table's own line where the key is not found as ``key =``."""
    table: list[str] = []
    best = 1
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            if table == keys[: len(table)]:
                best = number
            continue
        key = re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line)
        if key and table + key[1].replace('"', "").replace("'", "").split(".") == keys:
            return number
    return best

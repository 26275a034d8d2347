"""The configuration: one TOML file, every key with a default, every mistake with its line."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from typing import Any, TypeAlias, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec

from .errors import ConfigError, os_reason
from .names import printable, shown
from .schema import Api, Config, Gateway, Libvirt, Limits, Log, Paths, Section, Session, Tokens

__all__ = ["Api", "Config", "Gateway", "Libvirt", "Limits", "Log", "Paths", "Session", "Tokens"]

SYSTEM_FILE = "/etc/serial-console/config.toml"
"""Read where neither ``--config`` nor ``$SERIAL_CONSOLE_CONFIG`` names another file."""
FILE_MAX = 16384
"""Characters of a configuration; the one that we install has 8000. More can keep tomllib busy:
a key of 16000 parts took it 10 s."""
SHOWN_MAX = 200
"""Characters of a mistake that are repeated."""

_Mistake: TypeAlias = tuple[str, list[str]]
"""What is wrong, and the table and key that it is wrong with."""
_TYPES = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
    "array": "a list", "object": "a table",
}  # fmt: skip
"""msgspec's words for types, in an operator's."""


def load(path: str | None = None) -> Config:
    """Read the configuration and fill in the defaults of this user.

    Args:
        path: the file, or None for ``$SERIAL_CONSOLE_CONFIG``, else SYSTEM_FILE if it exists.

    Raises:
        ConfigError: the file cannot be read, is not TOML, has an unknown key, a value of the wrong
            type or one that makes no sense; the message names file, line and key.
    """
    path = found(path)
    return _filled(Config(), "the defaults") if path is None else parse(_read(path), path)


def mistakes(path: str | None = None) -> list[str]:
    """Return what ``load`` could raise, of each key, where it would raise the first alone.

    Args:
        path: as for load().
    """
    path = found(path)
    try:
        if path is None:
            _filled(Config(), "the defaults")
            return []
        text = _read(path)
        config, wrong = _read_out(text, path)
        if not wrong:
            _filled(config, path)
    except ConfigError as error:
        return [str(error)]
    return [str(_wrong(what, keys, text, path)) for what, keys in wrong]


def salvage(path: str | None = None) -> Config:
    """Return what of the configuration is right, with defaults for the rest: for who looks after
    mistakes. What ``load`` says of several keys together may be wrong in it.

    Args:
        path: as for load().
    """
    path = found(path)
    config = Config()
    with contextlib.suppress(ConfigError):
        config = _structured(_read(path), path)[0] if path else config
    for listener, key in ((config.gateway, "gateway"), (config.api, "api")):
        try:
            address(listener.listen)
        except ConfigError:
            config = msgspec.structs.replace(config, **{key: type(listener)()})
    try:
        return _filled(config, path or "")
    except ConfigError:  # an ordinary user without a runtime directory
        return _filled(config, SYSTEM_FILE)


def origins(path: str | None = None) -> dict[tuple[str, str], str]:
    """Return where the values of ``load`` come from: ``FILE:LINE`` by table and key; the other
    keys have their defaults. Raises as load() does."""
    path = found(path)
    if path is None:
        return {}
    text = _read(path)
    parse(text, path)
    return {
        (table, key): f"{path}:{_line(text, [table, key])}"
        for table, values in tomllib.loads(text).items()
        for key in values
    }


def directory(path: str | None = None) -> str:
    """Return where the file is that ``load`` reads, or would be: others may stand beside it."""
    return os.path.dirname(os.path.abspath(found(path) or SYSTEM_FILE))


def found(path: str | None) -> str | None:
    """Return the file that ``load`` reads, or None where there is none."""
    path = path or os.environ.get("SERIAL_CONSOLE_CONFIG") or None
    return SYSTEM_FILE if path is None and os.path.exists(SYSTEM_FILE) else path


def parse(text: str, path: str) -> Config:
    """Read the configuration from text; ``path`` is for the messages. Raises as load() does."""
    config, wrong = _read_out(text, path)
    for what, keys in wrong:
        raise _wrong(what, keys, text, path)
    return _filled(config, path)


def _at_once(path: str, flags: int) -> int:
    # Opening a FIFO would wait for its writer; a terminal could become a service's own.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(
                    f"the configuration {path} is not a regular file, but a pipe or a device; "
                    "copy what it should say into a file there, or name another with --config"
                )
            return file.read(FILE_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {os_reason(error)}; "
            "name a readable file with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error


def _read_out(text: str, path: str) -> tuple[Config, list[_Mistake]]:
    """Return the configuration and all that is wrong with it, in the file's order.

    Of a table that has a wrong key, what its keys say of each other is not asked.
    """
    config, wrong = _structured(text, path)
    tables = {keys[0] for _, keys in wrong}
    wrong += [mistake for mistake in _disagreeing(config) if mistake[1][0] not in tables]
    return config, sorted(wrong, key=lambda one: _line(text, one[1]))


def _structured(text: str, path: str) -> tuple[Config, list[_Mistake]]:
    """Return the configuration without the keys that are wrong, and of each what is wrong with it.

    Unknown keys are not left to msgspec: in its message one could pass for the place of another.
    """
    if len(text) > FILE_MAX:
        raise ConfigError(f"{path} has over {FILE_MAX} characters; name a configuration file")
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number without end, endless nesting
        why = shown(str(error), SHOWN_MAX)
        raise ConfigError(f"{path} is not valid TOML: {why}; correct that line") from error
    wrong: list[_Mistake] = []
    for keys in _unknown(data):
        wrong.append((f"unknown key; {_meant(keys)}", keys))
        _drop(data, keys)
    while True:
        try:
            config = msgspec.convert(data, Config)
            break
        except msgspec.ValidationError as error:
            what, keys = _explained(str(error))
            wrong.append((what, keys))
            _drop(data, keys)
    for section, values in data.items():
        for key, value in values.items():
            if any(one != printable(one) for one in _strings(value)):
                wrong.append(("has a control or invisible character", [section, key]))
    return config, wrong


def _unknown(data: dict[str, Any]) -> list[list[str]]:
    """Return the tables that there are not, and the keys that a table does not have."""
    tables = [[table] for table in data if table not in Config.__struct_fields__]
    return tables + [
        [table, key]
        for table, values in data.items()
        if table in Config.__struct_fields__ and isinstance(values, dict)
        for key in values
        if key not in _keys(table)
    ]


def _drop(data: dict[str, Any], keys: list[str]) -> None:
    """Take a key out, or the table where it is not found in it as msgspec names it."""
    table = data.get(keys[0])
    if len(keys) > 1 and isinstance(table, dict) and keys[1] in table:
        del table[keys[1]]
    else:
        del data[keys[0]]


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
            f"escape is {_quoted(text)}, which is no control key; "
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
        raise ConfigError(f'is {_quoted(listen)}; write host:port, such as "127.0.0.1:6083"')
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
                f"has {_quoted(text)}, which is neither an address nor a network; "
                'write them such as "192.0.2.7" or "10.0.0.0/8"'
            ) from error
    return found


def _check_urls(gateway: Gateway) -> Iterator[_Mistake]:
    """Give what is no URL, and each origin that is not as browsers write it."""
    url = gateway.public_url
    if url and not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", url):
        yield (
            f"is {_quoted(url)}; "
            'write the URL that browsers use, such as "https://host.example/console"',
            ["gateway", "public_url"],
        )
    elif (why := _wrong_port(url)) is not None:
        yield f"is {_quoted(url)}, which is no URL: {why}", ["gateway", "public_url"]
    for key in ("allowed_origins", "connect_origins"):
        for origin in getattr(gateway, key):
            if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", origin):
                yield (
                    f"has {_quoted(origin)}; write scheme, host in lower case and port "
                    'as browsers do, such as "https://host.example" or "https://host.example:8443"',
                    ["gateway", key],
                )
            elif (why := _wrong_port(origin)) is not None:
                yield f"has {_quoted(origin)}, which is no URL: {why}", ["gateway", key]


def _wrong_port(url: str) -> str | None:
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        return str(error)
    return None


def _quoted(value: str) -> str:
    """Return a value as a message may have it: without what may be a password before an ``@``."""
    return f'"{shown(re.sub(r"[^/]*@", "…@", value))}"'


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


def _disagreeing(config: Config) -> Iterator[_Mistake]:
    """Give what is wrong with values of the right type, and with what one says of another."""
    try:
        escape_byte(config.session.escape)
    except ConfigError as error:
        yield str(error), ["session", "escape"]
    for name in ("gateway", "api"):
        listen = getattr(config, name).listen
        try:
            host, _ = address(listen)
        except ConfigError as error:
            yield str(error), [name, "listen"]
            continue
        if _loopback(host):
            continue
        if name == "api":
            yield (
                f"is {_quoted(listen)}, which is not loopback; the API speaks "
                "plain HTTP: listen on 127.0.0.1 and put a TLS proxy in front",
                ["api", "listen"],
            )
        elif not config.gateway.tls_cert and not config.gateway.insecure:
            yield (
                f"is {_quoted(listen)}, which is not loopback, without "
                "TLS; set tls_cert and tls_key, or insecure = true if a TLS proxy is in front",
                ["gateway", "listen"],
            )
    try:
        networks(config.gateway.trusted_proxies)
    except ConfigError as error:
        yield str(error), ["gateway", "trusted_proxies"]
    yield from _check_urls(config.gateway)
    if bool(config.gateway.tls_cert) != bool(config.gateway.tls_key):
        alone = "tls_cert" if config.gateway.tls_cert else "tls_key"
        yield "tls_cert and tls_key go together; set both or none", ["gateway", alone]
    if config.log.audit and not os.path.isabs(config.log.audit):
        yield (
            f"is {_quoted(config.log.audit)}; write a whole path, "
            'such as "/var/log/serial-console/audit.log"',
            ["log", "audit"],
        )


def _filled(config: Config, path: str) -> Config:
    """Fill in what depends on who runs us."""
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


def _explained(message: str) -> tuple[str, list[str]]:
    """Return msgspec's message as ours, and the keys of the place that it names at its end."""
    what, _, where = message.rpartition(" - at `")
    keys = re.sub(r"\[.*", "", where.strip("`")).split(".")[1:]
    if what.startswith("Invalid enum value"):  # which it repeats: it may be a URL with a password
        return f"expected one of {_choices(keys)}", keys
    what = re.sub(r"`([a-z]+)`", lambda name: _TYPES.get(name[1], name[1]), what)
    what = what.replace("Expected ", "expected ").replace(", got ", ", not ")
    meaning = _meaning(*keys) if len(keys) > 1 else ""
    return f"{what}; it is: {meaning}" if meaning else what, keys


def _meaning(table: str, key: str, *_: str) -> str:
    """Return what the commented config.toml says first of a key, which has its unit."""
    with open(os.path.join(os.path.dirname(__file__), "config.toml"), encoding="utf-8") as file:
        inside = file.read().partition(f"\n[{table}]\n")[2].partition("\n[")[0]
    found = re.search(rf"((?:^# .*\n)+)#{re.escape(key)} = ", inside, re.MULTILINE)
    said = " ".join(line[2:] for line in found[1].splitlines()) if found else ""
    return re.split(r"[;:.](?:\s|$)", said)[0]


def _choices(keys: list[str]) -> str:
    """Return the values that a key may have, as one writes them."""
    hints = get_type_hints(type(getattr(Config(), keys[0])))
    return ", ".join(f'"{one}"' for one in get_args(hints[keys[1]]))


def _meant(keys: list[str]) -> str:
    """Return what a key that is not known may have been meant to be."""
    key = keys[-1]
    names = _keys(keys[0]) if len(keys) > 1 else Config.__struct_fields__
    tables = [table for table in Config.__struct_fields__ if key in _keys(table)]
    if tables:
        return f"it belongs into {' or '.join(f'[{one}]' for one in tables)}"
    close = difflib.get_close_matches(key[:SHOWN_MAX], names, 1)
    return (f"did you mean {close[0]}? " if close else "") + f"known here are: {', '.join(names)}"


def _keys(table: str) -> tuple[str, ...]:
    default = getattr(Config(), table, None)
    return default.__struct_fields__ if isinstance(default, Section) else ()


def _wrong(what: str, keys: list[str], text: str, path: str) -> ConfigError:
    key = shown(".".join(keys), SHOWN_MAX)
    said = shown(what, 2 * SHOWN_MAX)
    return ConfigError(f"{path}, line {_line(text, keys)}, key {key}: {said}")


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

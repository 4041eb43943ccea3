"""Where settings come from: one TOML file, with `GATE_*` environment variables on top.

What it promises: whatever is wrong is refused at start with the key's name and what to write
instead.

Order: `--config FILE`, else `GATE_CONFIG`, else `./gate.toml`, else defaults; on top of that
`GATE_SECTION__KEY` variables (`GATE_SERVER__PORT=8080`; lists separated by commas).
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gate.hooks.settings import ENV
from gate.reason import GateError
from gate.settings import Settings
from gate.settings.problems import problems

log = logging.getLogger("gate.settings")

_INDEX = re.compile(r"\[[^]]*\]")
ENV_PREFIX = "GATE_"
CONFIG_VARIABLE = "GATE_CONFIG"
DEFAULT_FILE = "gate.toml"
_TABLES = ("site", "hook")
"""Written [[site]]: there may be several, so that no variable can name one."""


def load(config: str | None, environ: Mapping[str, str], *, cwd: Path | None = None) -> Settings:
    """Settings of `config` (or the first file of the documented order) and the environment.

    Raises `GateError` with the key's name and what to write instead.
    """
    path = _config_path(config, environ, cwd or Path())
    tree = _read(path) if path else {}
    if path and _readable_by_others(path) and _holds_secrets(tree):
        log.warning("%s holds secrets and others may read it: chmod 600 %s", path, path)
    origin = str(path) if path else "the defaults"
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and "__" in name:
            _set(tree, name, value)
    return parse(_with_secrets(tree, environ, origin), origin=origin)


def parse(tree: Mapping[str, Any], *, origin: str = "settings") -> Settings:
    """A plain tree (as read from TOML) as checked `Settings`."""
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise GateError(f"{origin}: {_explain(str(error))}") from None
    for problem in problems(settings):
        raise GateError(f"{origin}: {problem}")
    return settings


def _config_path(config: str | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = config or environ.get(CONFIG_VARIABLE)
    if named:
        return cwd / named
    default = cwd / DEFAULT_FILE
    return default if default.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise GateError(
            f"{path}: cannot be read ({error.strerror}); give --config an existing file"
        ) from None
    except RecursionError:
        raise GateError(f"{path}: is not valid TOML: nested too deep") from None
    except ValueError as error:  # also of text that is no UTF-8, and of numbers without end
        raise GateError(f"{path}: is not valid TOML: {error}") from None


def _readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)


def _holds_secrets(tree: Mapping[str, Any]) -> bool:
    """Whether a secret stands in the file itself; the hash of a secret key is none."""

    def plain(table: Any) -> bool:
        if not isinstance(table, dict):
            return False
        secrets = table.get("secrets")
        written = isinstance(secrets, list) and any(
            isinstance(text, str) and not text.startswith(ENV) for text in secrets
        )
        return written or any(plain(inner) for inner in _listed(table, "webhook"))

    server = tree.get("server")
    own = isinstance(server, dict) and bool(server.get("secret") or server.get("secret_previous"))
    egress = tree.get("egress")
    addresses = _listed(egress, "address") if isinstance(egress, dict) else []
    urls = [entry.get("proxy") for entry in addresses if isinstance(entry, dict)]
    store = tree.get("store")
    urls.append(store.get("url") if isinstance(store, dict) else None)
    return (
        own
        or any(isinstance(url, str) and "@" in url for url in urls)
        or any(plain(table) for name in _TABLES for table in _listed(tree, name))
    )


def _listed(tree: Mapping[str, Any], name: str) -> list[Any]:
    found = tree.get(name)
    return found if isinstance(found, list) else []


def _set(tree: dict[str, Any], name: str, value: str) -> None:
    """Put one `GATE_SECTION__KEY` variable into the tree; the environment wins over the file."""
    *sections, key = name.removeprefix(ENV_PREFIX).lower().split("__")
    if len(sections) != 1 or not key:
        raise GateError(f"{name}: write GATE_SECTION__KEY, as in GATE_SERVER__PORT=8080")
    (section,) = sections
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    if section not in fields or section in _TABLES:
        known = ", ".join(f"GATE_{n.upper()}__…" for n in fields if n not in _TABLES)
        raise GateError(f"{name}: there is no section {section!r}; there is {known}")
    table = tree.setdefault(section, {})
    if not isinstance(table, dict):
        raise GateError(f"{section}: must be a table, written [{section}]")
    table[key] = _typed(fields[section].type, key, value)


def _with_secrets(tree: dict[str, Any], environ: Mapping[str, str], origin: str) -> dict[str, Any]:
    """The tree with the secrets of hooks, webhooks and proxies that are written `env:NAME` read
    from the environment.
    """

    def read(text: Any, key: str) -> Any:
        if not isinstance(text, str) or not text.startswith(ENV):
            return text
        value = environ.get(text.removeprefix(ENV), "")
        if not value:
            raise GateError(f"{origin}: {key}: {text}: the variable is not set, or is empty")
        return value

    def filled(table: Any, name: str) -> Any:
        """One table with its secrets read; what is no such table is left to be refused."""
        if not isinstance(table, dict):
            return table
        if isinstance(table.get("secrets"), list):
            secrets = [read(text, f"{name}.secrets") for text in table["secrets"]]
            table = table | {"secrets": secrets}
        if isinstance(table.get("webhook"), list):
            webhooks = [filled(inner, f"{name}.webhook") for inner in table["webhook"]]
            table = table | {"webhook": webhooks}
        return table

    lists = {name: tree[name] for name in _TABLES if isinstance(tree.get(name), list)}
    tree = tree | {name: [filled(t, name) for t in tables] for name, tables in lists.items()}
    egress = tree.get("egress")
    if isinstance(egress, dict) and isinstance(egress.get("address"), list):
        addresses = [
            entry | {"proxy": read(entry["proxy"], "egress.address.proxy")}
            if isinstance(entry, dict) and "proxy" in entry
            else entry
            for entry in egress["address"]
        ]
        tree = tree | {"egress": egress | {"address": addresses}}
    return tree


def _typed(section: Any, key: str, value: str) -> Any:
    """A variable's text in the shape its setting has: lists are separated by commas."""
    for field in msgspec.structs.fields(section):
        if field.name == key and "tuple" in str(field.type):
            return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _explain(message: str) -> str:
    """msgspec's message with the key first and, for an unknown key, the keys that exist."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if "unknown field" in text:
        unknown = text.rsplit("`", 2)[-2]
        known = ", ".join(_keys_at(path))
        where = f"{path}.{unknown}" if path else unknown
        return f"{where}: there is no such key; there is {known}"
    return f"{path or 'settings'}: {text[0].lower()}{text[1:]}"


def _keys_at(path: str) -> list[str]:
    """The keys that exist in the table that `path` (msgspec's notation) names."""
    at: Any = Settings
    for part in filter(None, _INDEX.sub("", path).split(".")):
        kind = next((f.type for f in msgspec.structs.fields(at) if f.name == part), at)
        at = _struct_of(kind) or at
    return [field.name for field in msgspec.structs.fields(at)]


def _struct_of(kind: Any) -> Any:
    """The section type inside `Annotated[...]` and `tuple[..., ...]`, if there is one."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind
    return next(filter(None, map(_struct_of, getattr(kind, "__args__", ()))), None)

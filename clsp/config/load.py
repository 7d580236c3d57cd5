"""Read params.yaml, refuse what is wrong in it, and say where."""

from pathlib import Path
from typing import Any

import yaml

from clsp.config.references import check_references
from clsp.config.schema import Params
from clsp.config.strict import parse
from clsp.config.variation import with_derived_banks
from clsp.runtime.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not a silent choice of the last one."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                mark = node.start_mark
                raise ConfigError(
                    f"{mark.name}: the mapping that starts in line {mark.line + 1} "
                    f'gives the key "{key}" twice'
                )
        return node


def read_yaml(path: Path) -> Any:
    """Parse one YAML file.

    Raises:
        ConfigError: If it is missing or malformed, with the line.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return yaml.load(stream, Loader=_Loader)  # noqa: S506 - a SafeLoader subclass
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def _merged(base: Any, changes: Any) -> Any:
    if isinstance(base, dict) and isinstance(changes, dict):
        both = {key: _merged(base[key], changes[key]) for key in base.keys() & changes.keys()}
        dropped = {key for key, value in both.items() if value is None}
        merged = {**base, **changes, **both}
        return {key: value for key, value in merged.items() if key not in dropped}
    return changes


def _bases(extends: Any, where: str) -> list[str]:
    """The files that `extends` names, in order."""
    named = extends if isinstance(extends, list) else [extends]
    if not named or not all(isinstance(name, str) and name for name in named):
        raise ConfigError(
            f"{where}: extends: expected a file or a list of files, found {extends!r}"
        )
    for name in named:
        if named.count(name) > 1:
            raise ConfigError(f'{where}: extends: "{name}" is given twice')
    return named


def resolve_base(data: Any, where: str, seen: tuple[str, ...] = ()) -> Any:
    """Lay a file with the key `extends: FILE` or `extends: [FILE, ...]` over what it names.

    Several files are merged from left to right, then the file itself on top. Mappings are merged
    key by key, everything else is replaced, and a key set to null is dropped. Paths are relative
    to the working directory. A file that is named may be partial, such as those in
    configs/recipes/.

    Args:
        data: The parsed file.
        where: Its name, for messages.
        seen: Files on the way here, each extended by the one before.

    Raises:
        ConfigError: If a base cannot be read or is no mapping, or files extend each other in a
            circle.
    """
    if not isinstance(data, dict) or "extends" not in data:
        return data
    below: dict[Any, Any] = {}
    for base in _bases(data["extends"], where):
        if base in seen:
            raise ConfigError(f"{where}: extends: circle {' -> '.join([*seen, base])}")
        resolved = resolve_base(read_yaml(Path(base)), base, (*seen, base))
        if not isinstance(resolved, dict):
            raise ConfigError(f"{base}: expected a mapping, found {resolved!r}")
        below = _merged(below, resolved)
    return _merged(below, {key: value for key, value in data.items() if key != "extends"})


def load_params(data: Any, where: str = "params.yaml") -> Params:
    """Validate a parsed params.yaml, including every reference between its entries.

    Args:
        data: The parsed file; its key `extends` names a file or files that it changes. Banks that
            grids over the interpolation weight need are added to what it says.
        where: Name of the file, for messages.

    Raises:
        ConfigError: One message naming the key path, the value and what exists.
    """
    params = parse(Params, resolve_base(data, where), where)
    try:
        params = with_derived_banks(params)
        check_references(params)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return params

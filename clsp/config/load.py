"""Read params.yaml, refuse what is wrong in it, and say where."""

from pathlib import Path
from typing import Any

import yaml

from clsp.config.references import check_references
from clsp.config.schema import Params
from clsp.config.strict import parse
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
        return {**base, **changes, **both}
    return changes


def resolve_base(data: Any, where: str, seen: tuple[str, ...] = ()) -> Any:
    """Lay a file with the key `extends: FILE` over the file it names.

    Mappings are merged key by key, everything else is replaced. The path is relative to the
    working directory.

    Raises:
        ConfigError: If the base cannot be read, or files extend each other in a circle.
    """
    if not isinstance(data, dict) or "extends" not in data:
        return data
    base = str(data["extends"])
    if base in seen:
        raise ConfigError(f"{where}: extends: circle {' -> '.join([*seen, base])}")
    below = resolve_base(read_yaml(Path(base)), base, (*seen, base))
    return _merged(below, {key: value for key, value in data.items() if key != "extends"})


def load_params(data: Any, where: str = "params.yaml") -> Params:
    """Validate a parsed params.yaml, including every reference between its entries.

    Args:
        data: The parsed file; its key `extends` names a file that it changes.
        where: Name of the file, for messages.

    Raises:
        ConfigError: One message naming the key path, the value and what exists.
    """
    params = parse(Params, resolve_base(data, where), where)
    try:
        check_references(params)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return params

"""The file name is the registration: a plug-in is a module in a folder, found by its name.

`names` lists a folder without importing anything. `options` checks a plug-in's settings without
importing torch, so that params.yaml is judged completely while Snakemake parses it: only the
classes of the module that derive from `Strict` are evaluated, with the imports they need.
"""

import ast
import difflib
import importlib
import importlib.util
import sys
import types
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from clsp.runtime.errors import ConfigError

LIGHT = ("__future__", "typing", "pydantic", "clsp.config", "pathlib")


def _folder(package: str) -> Path:
    root = Path(__file__).parents[1]
    return root.joinpath(*package.split(".")[1:])


@cache
def names(package: str) -> tuple[str, ...]:
    """Plug-ins of a package such as "clsp.pretrain.methods", sorted."""
    files = _folder(package).glob("*.py")
    return tuple(sorted(f.stem for f in files if not f.stem.startswith("_")))


def nearest(word: Any, known: Any) -> str:
    """'; did you mean "x"?' or nothing, for the end of an error message."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def require(package: str, name: Any, kind: str) -> None:
    """Refuse a name that is no plug-in of the package; it may be anything that YAML can hold.

    Raises:
        ConfigError: With the nearest name and all names that exist.
    """
    known = names(package)
    if name not in known:
        raise ConfigError(
            f'unknown {kind} "{name}"{nearest(name, known)}; known: {", ".join(known)}'
        )


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import a plug-in.

    Raises:
        ConfigError: If there is none of that name.
    """
    require(package, name, kind)
    return importlib.import_module(f"{package}.{name}")


def _is_settings(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(base, ast.Name) and base.id.endswith(("Strict", "Config", "Settings"))
        for base in node.bases
    )


def _is_light(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.level == 0 and (node.module or "").startswith(LIGHT)
    if isinstance(node, ast.Import):
        return all(alias.name.startswith(LIGHT) for alias in node.names)
    return False


@cache
def settings_class(package: str, name: str) -> type:
    """The `Config` class of a plug-in, without running the rest of its module.

    A Config may use names from pydantic, typing, pathlib and clsp.config only.
    """
    path = _folder(package) / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    body = [node for node in tree.body if _is_light(node) or _is_settings(node)]
    module = types.ModuleType(f"{package}.{name}:settings")
    sys.modules[module.__name__] = module  # pydantic resolves annotations through sys.modules
    code = compile(ast.Module(body=body, type_ignores=[]), str(path), "exec")
    exec(code, module.__dict__)  # noqa: S102 - our own source file, as an import would run it
    try:
        return module.Config
    except AttributeError:
        raise ConfigError(f"{path}: a plug-in must define a class Config(Strict)") from None

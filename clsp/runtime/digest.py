"""A digest of the code behind a job, which Snakemake uses as a rerun trigger.

It covers the syntax trees, without docstrings and comments, of the static import closure of the
given modules inside this package. Left out: `clsp.config`, whose whole effect is in the spec, and
the plumbing of `clsp.runtime` that cannot change a number. Modules loaded by name are not seen:
pass them in.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUMERIC_RUNTIME = {f"clsp.runtime.{name}" for name in ("keys", "rng", "checkpoint", "device")}


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _counts(module: str) -> bool:
    if module.startswith("clsp.runtime"):
        return module in NUMERIC_RUNTIME
    return module.startswith("clsp.") and not module.startswith("clsp.config")


@cache
def _tree(module: str) -> ast.Module:
    path = _file(module)
    if path is None:
        raise ModuleNotFoundError(f"no module {module} in {ROOT}")
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> frozenset[str]:
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if _counts(name) and _file(name))


# Fields that carry no behaviour, or that not every supported Python version has.
SILENT = ("ctx", "kind", "type_comment", "type_ignores", "type_params")


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def serialise(node: object) -> str:
    """A syntax tree as text that is the same under every supported Python version."""
    if isinstance(node, list):
        return "[" + ",".join(serialise(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name in SILENT:
            continue
        if name == "body" and isinstance(value, list) and value and _is_docstring(value[0]):
            value = value[1:]
        if isinstance(node, ast.JoinedStr):  # 3.12 ends some f-strings with an empty piece
            value = [v for v in value if not (isinstance(v, ast.Constant) and v.value == "")]
        fields.append(f"{name}={serialise(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


@cache
def _bare(module: str) -> str:
    return serialise(_tree(module))


@cache
def closure(*modules: str) -> tuple[str, ...]:
    """The given modules and everything of the package they import, sorted."""
    seen: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        if module not in seen:
            seen.add(module)
            queue.extend(_imports(module))
    return tuple(sorted(seen))


@cache
def code_digest(*modules: str) -> str:
    """16 hex digits that change when, and only when, code that these modules run changes."""
    digest = hashlib.sha256()
    for module in closure(*modules):
        digest.update(f"{module}\0{_bare(module)}\0".encode())
    return digest.hexdigest()[:16]

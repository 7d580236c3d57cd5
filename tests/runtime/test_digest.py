import ast
import hashlib
import textwrap

import pytest

from clsp.runtime import digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package named clsp in a temporary place, with an editor for its modules."""
    (tmp_path / "clsp" / "config").mkdir(parents=True)
    monkeypatch.setattr(digest, "ROOT", tmp_path)

    def write(module, text):
        path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        for cached in (digest._tree, digest._imports, digest._bare, digest.closure):
            cached.cache_clear()
        digest.code_digest.cache_clear()

    write("clsp.loss", '"""Loss."""\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n')
    write("clsp.config.schema", "A = 1\n")
    write("clsp.run", "from clsp import loss\nfrom clsp.config.schema import A\nimport numpy\n")
    write("clsp.other", "B = 2\n")
    return write


def test_the_closure_follows_imports_inside_the_package(package):
    assert digest.closure("clsp.run") == ("clsp.loss", "clsp.run")


def test_comments_and_docstrings_change_nothing_and_code_does(package):
    before = digest.code_digest("clsp.run")
    package(
        "clsp.loss", '"""Another."""\ndef f(x):\n    """More\n    words."""\n    return x + 1\n'
    )
    assert digest.code_digest("clsp.run") == before
    package("clsp.other", "B = 3\n")
    package("clsp.config.schema", "A = 2\n")
    assert digest.code_digest("clsp.run") == before
    package("clsp.loss", "def f(x):\n    return x + 2\n")
    assert digest.code_digest("clsp.run") != before


def test_a_module_that_does_not_exist_is_named(package):
    with pytest.raises(ModuleNotFoundError, match=r"clsp\.absent"):
        digest.code_digest("clsp.absent")


def test_the_text_of_a_tree_is_the_same_under_every_python():
    """3.11 and 3.12 must agree, or a pull on a machine with the other would rerun everything."""
    source = 'def f(x: int, *, key="a") -> str:\n    "Doc."\n    return f"{x!r:>{4}} {key}"\n'
    text = digest.serialise(ast.parse(source))
    assert "Doc." not in text
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "5daef991b478366c"

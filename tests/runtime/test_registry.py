import pytest

from clsp.config.schema import GENERATORS, KINDS, METHODS, POSITIVES
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import load, names, require, settings_class

FOLDERS = [KINDS, GENERATORS, METHODS, POSITIVES]


@pytest.mark.parametrize("package", FOLDERS)
def test_every_folder_has_plugins(package):
    assert len(names(package)) > 0


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in FOLDERS for name in names(package)]
)
def test_settings_read_without_torch_are_the_modules_own(package, name):
    light = settings_class(package, name)
    full = load(package, name, "plug-in").Config
    assert light.model_json_schema() == full.model_json_schema()


def test_an_unknown_name_is_refused_with_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r'unknown method "simclr2" \(did you mean "simclr"\?\)'):
        require(METHODS, "simclr2", "method")
    with pytest.raises(ConfigError, match=r"known: .*moco.*simclr"):
        load(METHODS, "nothing", "method")

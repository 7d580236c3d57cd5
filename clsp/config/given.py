"""What --params, --spec, --results and --reports of a command name: one profile and its folders."""

from pathlib import Path

from clsp.config.load import load_params, read_yaml
from clsp.config.schema import Params
from clsp.config.strict import parse
from clsp.runtime.canonical import parse_json
from clsp.runtime.errors import ConfigError, DataError


def given_params(path: Path, spec: str | None = None) -> Params:
    """The parameters of a file, or resolved ones as JSON, which rules pass instead.

    Raises:
        ConfigError: If they are wrong.
    """
    if spec is None:
        return load_params(read_yaml(path), str(path))
    try:
        return parse(Params, parse_json(spec), "--spec")
    except ValueError as error:
        raise ConfigError(f"--spec: not valid JSON ({error})") from error


def given_folder(given: Path | None, parent: str, profile: str) -> Path:
    """A folder of a profile: as given by the flag --PARENT, else PARENT/PROFILE.

    Args:
        given: By the flag, or None.
        parent: "results" or "reports".
        profile: Its name.

    Raises:
        DataError: If there is no such folder.
    """
    folder = given or Path(parent) / profile
    if not folder.is_dir():
        raise DataError(f"--{parent} {folder}: no such folder; nothing has been run there yet")
    return folder

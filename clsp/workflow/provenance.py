"""Carry Snakemake's own records with the results.

Snakemake decides what is current from records in .snakemake/metadata. Without them, after a clone
and `dvc pull`, it would not see a changed parameter and keep a wrong result (workflow.md 1.4). So
they are bundled into results/<profile>/provenance/snakemake.json, which DVC tracks, and restored
from it whenever that file is another than the one last written or read here.

The ledger of attempts travels beside it, as a copy: jobs append to the original at any time, which
must not look to DVC like a changed result.
"""

import argparse
import base64
import os
import stat
from pathlib import Path
from typing import Any

from clsp.runtime.canonical import canonical_json, read_json, sha256_file
from clsp.runtime.errors import DataError
from clsp.runtime.files import write_atomic
from clsp.runtime.ledger import NAME as LEDGER

METADATA = Path(".snakemake") / "metadata"


def _bundle(profile: str) -> Path:
    return Path("results") / profile / "provenance" / "snakemake.json"


def _seen(profile: str) -> Path:
    return Path(".snakemake") / f"clsp-provenance-{profile}.sha256"


def _output_of(record: Path) -> str:
    """The output a record is about: its file name is base64, long ones split into @folders."""
    parts = record.relative_to(METADATA).parts
    encoded = "".join(part.removeprefix("@") for part in parts)
    return base64.b64decode(encoded).decode()


def _records(profile: str) -> dict[Path, str]:
    prefixes = (f"results/{profile}/", f"reports/{profile}/")
    found = {path: _output_of(path) for path in sorted(METADATA.rglob("*")) if path.is_file()}
    return {path: output for path, output in found.items() if output.startswith(prefixes)}


def _refuse_links(profile: str) -> None:
    """Outputs that are links into a cache make Snakemake skip or break jobs silently."""
    for folder, folders, files in os.walk(Path("results") / profile):
        folders[:] = [name for name in folders if not name.startswith(".partial-")]
        for name in files:
            path = Path(folder) / name
            try:
                state = path.lstat()
            except FileNotFoundError:
                continue  # a job that is running has just moved it
            if stat.S_ISLNK(state.st_mode) or state.st_nlink > 1:
                raise DataError(
                    f"{path}: is a link, as DVC makes them into its cache; run "
                    "`dvc config cache.type reflink,copy && dvc checkout --relink`"
                )


def _ledgers(profile: str) -> tuple[Path, Path]:
    """The ledger that jobs append to, and its copy that DVC tracks."""
    home = Path("results") / profile
    return home / LEDGER, home / "provenance" / LEDGER


def _restore_ledger(profile: str) -> None:
    """Take over a ledger that was pulled, if it goes on where the one here ends.

    One that parted from it is left alone: the audit follows the one here.
    """
    here, pulled = _ledgers(profile)
    if not pulled.exists():
        return
    known, content = here.read_bytes() if here.exists() else b"", pulled.read_bytes()
    if len(content) > len(known) and content.startswith(known):
        write_atomic(here, content)


def export(profile: str) -> None:
    """Bundle the records of a profile's outputs.

    DVC records no folder that is not there, and runs without pairs or imports leave none of theirs.
    """
    for name in ("pairs", "imported"):
        (Path("results") / profile / name).mkdir(parents=True, exist_ok=True)
    records: dict[str, Any] = {
        path.relative_to(METADATA).as_posix(): read_json(path) for path in _records(profile)
    }
    text = canonical_json(records) + "\n"
    bundle = _bundle(profile)
    if not bundle.exists() or bundle.read_text(encoding="utf-8") != text:
        write_atomic(bundle, text)
    write_atomic(_seen(profile), sha256_file(bundle))
    ledger, copied = _ledgers(profile)
    if ledger.exists() and (not copied.exists() or copied.read_bytes() != ledger.read_bytes()):
        write_atomic(copied, ledger.read_bytes())


def restore(profile: str) -> None:
    """Load the bundle if it came from elsewhere: a pull, a checkout, an applied experiment.

    Raises:
        DataError: If outputs are links, or the bundle is damaged.
    """
    _refuse_links(profile)
    _restore_ledger(profile)
    bundle, seen = _bundle(profile), _seen(profile)
    if not bundle.exists():
        return
    digest = sha256_file(bundle)
    if seen.exists() and seen.read_text(encoding="utf-8") == digest:
        return
    records = read_json(bundle)
    for path in _records(profile):
        path.unlink()
    for name, record in records.items():
        path = METADATA / name
        if not path.resolve().is_relative_to(METADATA.resolve()):
            raise DataError(f"{bundle}: names a file outside {METADATA}: {name}")
        write_atomic(path, canonical_json(record))
    write_atomic(seen, digest)


def main(argv: list[str]) -> int:
    """`python -m clsp provenance export|restore PROFILE`."""
    parser = argparse.ArgumentParser(prog="python -m clsp provenance", description=__doc__)
    parser.add_argument("action", choices=["export", "restore"])
    parser.add_argument("profile", help="the name given as `profile:` in params.yaml")
    arguments = parser.parse_args(argv)
    {"export": export, "restore": restore}[arguments.action](arguments.profile)
    return 0

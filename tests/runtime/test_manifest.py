import json
import os

import pytest

from clsp.runtime.errors import DataError, IncompleteError
from clsp.runtime.manifest import group_artefacts, read_manifest, write_manifest


def _artefact(folder):
    (folder / "files").mkdir(parents=True)
    (folder / "a.txt").write_text("alpha")
    (folder / "files" / "b.txt").write_text("beta")
    predicate = {"step": "toy", "externalParameters": {"spec": {"x": 1}}, "metrics": {"m": 2}}
    outputs = {"a.txt": folder / "a.txt", "files": folder / "files"}
    return write_manifest(folder / "manifest.json", outputs, [], predicate)


def test_a_manifest_lists_files_and_the_files_of_folders(tmp_path):
    _artefact(tmp_path)
    artefact = read_manifest(tmp_path / "manifest.json")
    assert set(artefact.subjects) == {"a.txt", "files/b.txt"}
    assert (artefact.stage, artefact.spec, artefact.metrics) == ("toy", {"x": 1}, {"m": 2})
    assert artefact.path("files") == tmp_path / "files"
    artefact.verify()
    with pytest.raises(DataError, match=r"has no file c\.txt"):
        artefact.path("c.txt")


def test_a_changed_byte_is_found_whatever_its_time_stamp(tmp_path):
    artefact = _artefact(tmp_path)
    path = tmp_path / "files" / "b.txt"
    before = path.stat()
    path.write_text("betA")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"b\.txt: corrupt"):
        artefact.verify()
    path.unlink()
    with pytest.raises(DataError, match=r"b\.txt: missing"):
        artefact.verify()


def test_foreign_and_future_manifests_are_refused(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text("[]")
    with pytest.raises(DataError, match="not a manifest of this suite"):
        read_manifest(path)
    path.unlink()
    _artefact(tmp_path)
    statement = json.loads(path.read_text())
    statement["predicate"]["schema_version"] = 99
    path.write_text(json.dumps(statement))
    with pytest.raises(IncompleteError, match="newer than this tool"):
        read_manifest(path)


def test_grouping_finds_manifests_among_files(tmp_path):
    _artefact(tmp_path)
    given = [tmp_path / "a.txt", tmp_path / "manifest.json"]
    assert [a.manifest for a in group_artefacts(given)] == [tmp_path / "manifest.json"]
    assert group_artefacts([]) == []
    with pytest.raises(DataError, match="no manifest"):
        group_artefacts([tmp_path / "a.txt"])

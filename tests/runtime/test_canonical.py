import numpy as np
import pytest

from clsp.runtime.canonical import canonical_json, parse_json, read_json, sha256_array, sha256_json
from clsp.runtime.errors import DataError


def test_canonical_json_ignores_the_order_of_keys():
    assert canonical_json({"b": 1, "a": [1, 2.5]}) == '{"a":[1,2.5],"b":1}'
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_cannot_hold_a_number_that_is_not_finite(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"loss": value})


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a":NaN}', '{"a":'])
def test_parsing_is_strict(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_read_json_names_the_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"absent\.json: cannot be read"):
        read_json(tmp_path / "absent.json")


def test_array_hash_depends_on_content_shape_and_type_only(tmp_path):
    array = np.arange(6000, dtype=np.int32).reshape(1000, 6)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert sha256_array(array) == sha256_array(mapped) == sha256_array(np.asfortranarray(array))
    assert sha256_array(array) != sha256_array(array.reshape(6, 1000))
    assert sha256_array(array) != sha256_array(array.astype(np.int64))

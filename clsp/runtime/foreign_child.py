"""Turns a zip file of torch.save into safetensors, alone in a process of its own.

Run by clsp.runtime.foreign as `python -I foreign_child.py FILE TENSORS ANSWER MEMORY`. Its parent
has looked at the file's outer shape and has set limits on time and on what may be written. It
answers with JSON: what it found, or why it refuses.
"""

import json
import re
import resource
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

NESTED = ("state_dict", "model")  # keys under which a state dict may lie
KINDS = (  # of numbers; the parent asks the same of safetensors
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
FORBIDDEN = (  # what no file of tensors needs, whatever its pickle asks for
    "os.system",
    "os.exec",
    "os.fork",
    "os.spawn",
    "os.posix_spawn",
    "os.putenv",
    "subprocess.",
    "socket.",
    "pty.",
    "urllib.",
    "shutil.",
    "webbrowser.",
)


class Refused(Exception):
    """The file is not one that is read; the message says what was found and expected."""


def _confine(extra: int) -> None:
    """From here on little more memory than the file needs, and no process and no network."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + extra, mapped + extra))

    def forbid(event: str, _arguments: Any) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"the file tried {event}")

    sys.addaudithook(forbid)


def _state_dict(loaded: Any) -> tuple[dict[str, Any], str | None, list[str]]:
    """The state dict, the key that it lies under, and the names of what lies beside it."""
    if not isinstance(loaded, dict):
        raise Refused(f"holds a {type(loaded).__name__}, expected a state dict of tensors")
    for key in NESTED:
        if isinstance(loaded.get(key), dict):
            return loaded[key], key, sorted(str(other) for other in loaded if other != key)
    return loaded, None, []


def _check(name: Any, value: Any) -> int:
    """Bytes of one tensor."""
    if not isinstance(name, str) or not name:
        raise Refused(f"has the key {name!r}, expected names of tensors")
    if not isinstance(value, torch.Tensor):
        raise Refused(f'"{name}" is a {type(value).__name__}, expected a tensor')
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        found = f"{value.layout} on {value.device}"
        raise Refused(f'"{name}" is a tensor of layout {found}, expected a dense one')
    if value.dtype not in KINDS:
        raise Refused(f'"{name}" holds {value.dtype}, expected numbers of a common type')
    return value.numel() * value.element_size()


def convert(source: Path, target: Path) -> dict[str, Any]:
    """Read the file and write its tensors; returns what is to be known of it."""
    mapped = zipfile.is_zipfile(source)  # what torch.save wrote before 1.6 cannot be
    loaded = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    tensors, nested, beside = _state_dict(loaded)
    if not tensors:
        raise Refused("holds no tensor")
    claimed, held = sum(_check(*item) for item in tensors.items()), source.stat().st_size
    if claimed > held:
        raise Refused(f"claims tensors of {claimed} bytes, but the file has {held}")
    # A copy each: tensors that share memory in the file do not in safetensors.
    packed = {
        name: value.detach().resolve_neg().clone().contiguous() for name, value in tensors.items()
    }
    save_file(packed, target)
    return {"nested": nested, "beside": beside[:100]}


def main() -> None:
    """Convert, and write the answer whatever happens."""
    source, target, answer = map(Path, sys.argv[1:4])
    _confine(int(sys.argv[4]))
    try:
        found = convert(source, target)
    except Refused as error:
        found = {"refused": str(error)}
    except MemoryError:
        found = {"refused": "needs more memory than its size justifies"}
    except Exception as error:  # whatever a hostile file raises ends in one message
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))  # what it would have imported
        about = f"it asks for {wanted[1]}" if wanted else f"{error}".strip().partition("\n")[0]
        found = {"refused": f"cannot be read as tensors alone ({type(error).__name__}: {about})"}
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()

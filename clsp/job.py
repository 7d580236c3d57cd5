"""Runs one stage as one job: checks what goes in, records what comes out."""

import dataclasses
import shutil
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clsp.config.claims import CLAIMS
from clsp.config.strict import parse
from clsp.runtime import leftovers, tracking
from clsp.runtime.canonical import canonical_json, parse_json, sha256_file, sha256_json
from clsp.runtime.errors import (
    ClspError,
    ConfigError,
    DataError,
    DivergedError,
    ExhaustedError,
    ran_out,
)
from clsp.runtime.files import exclusive, staged, write_atomic
from clsp.runtime.ledger import Attempt, reason_of, status_of
from clsp.runtime.machine import describe_machine
from clsp.runtime.manifest import (
    Artefact,
    describe_file,
    failure_of,
    group_artefacts,
    write_manifest,
)
from clsp.runtime.places import place_of_file, without_places
from clsp.runtime.source import lock_digest, source_state
from clsp.runtime.stage import Outcome, Parameter, parameters


@dataclasses.dataclass
class Call:
    """One call of a stage from the command line."""

    stage: str
    function: Callable[..., Outcome]
    arguments: dict[str, Any]  # as parsed: str, Path or list[Path]
    manifest: Path
    code: str
    threads: int


@dataclasses.dataclass
class Bound:
    """The arguments of a stage function, sorted by what they are."""

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    spec: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: list[tuple[str, Artefact]] = dataclasses.field(default_factory=list)
    files: dict[str, Path] = dataclasses.field(default_factory=dict)
    outputs: dict[str, Path] = dataclasses.field(default_factory=dict)
    others: dict[str, str] = dataclasses.field(default_factory=dict)
    scratch: Path | None = None


def parse_spec(text: str) -> Any:
    """Parse the --spec flag: JSON, or @FILE holding JSON.

    Raises:
        ConfigError: If it is neither.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--spec {text}: cannot be read ({error.strerror})") from error
    try:
        return parse_json(text)
    except ValueError as error:
        raise ConfigError(f"--spec: not valid JSON ({error})") from error


def _bind_one(bound: Bound, parameter: Parameter, given: Any, stage: str, code: str) -> None:
    name = parameter.name
    match parameter.kind:
        case "spec":
            bound.values[name] = parse(parameter.type, parse_spec(given), f"--spec of {stage}")
            bound.spec = bound.values[name].canonical()
        case "input" | "inputs":
            artefacts = group_artefacts(given)
            if parameter.kind == "input" and len(artefacts) != 1:
                raise ConfigError(f"--{name}: expected one artefact, found {len(artefacts)}")
            bound.inputs += [(name, artefact) for artefact in artefacts]
            bound.values[name] = artefacts[0] if parameter.kind == "input" else artefacts
        case "file":
            if not given.is_file():
                raise DataError(f"--{name} {given}: no such file")
            bound.files[name] = bound.values[name] = given
        case "files":
            for path in given:
                if not path.is_file():
                    raise DataError(f"--{name} {path}: no such file")
                if f"{name}/{path.name}" in bound.files:
                    raise ConfigError(f"--{name}: two files have the name {path.name}")
                bound.files[f"{name}/{path.name}"] = path
            bound.values[name] = given
        case "output":
            bound.outputs[name] = given
        case "scratch":
            # Resume state of other code is never continued: the manifest names one program.
            bound.scratch = given
            bound.values[name] = given / (code or "uncoded")
        case _:
            bound.values[name] = given
            rooted = isinstance(given, str | Path) and str(given).startswith("/")
            bound.others[name] = place_of_file(Path(given)) if rooted else str(given)


def _bind(call: Call) -> Bound:
    bound = Bound()
    for parameter in parameters(call.function):
        _bind_one(bound, parameter, call.arguments[parameter.name], call.stage, call.code)
    home = call.manifest.parent
    for path in bound.outputs.values():
        if not path.is_relative_to(home):
            raise ConfigError(f"{path}: outputs must lie beside or below {call.manifest}")
    return bound


def _environment(threads: int) -> dict[str, Any]:
    return {**describe_machine(threads), "lock_sha256": lock_digest()}


def _expectations(stage: str) -> dict[str, Any]:
    """What is claimed while a run starts: a file that changes later cannot judge it."""
    if stage != "pretrain-encoder":
        return {}
    return {"claims_sha256": sha256_file(CLAIMS) if CLAIMS.is_file() else None}


def _dependencies(bound: Bound) -> list[dict[str, Any]]:
    made = [
        {
            "name": f"{flag}/{name}",
            "uri": place_of_file(artefact.folder / name),
            "digest": subject["digest"],
        }
        for flag, artefact in bound.inputs
        for name, subject in artefact.subjects.items()
    ]
    tracked = [
        {**describe_file(path, flag), "uri": place_of_file(path)}
        for flag, path in bound.files.items()
    ]
    return made + tracked


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _in_memory(call: Call, values: dict[str, Any]) -> Outcome:
    """Call the stage; that memory ran out is told like any other want of the machine.

    The spec stays what it is: a smaller batch would be another run.

    Raises:
        ExhaustedError: If it ran out; whatever the stage raises else.
    """
    try:
        return call.function(**values)
    except (MemoryError, RuntimeError) as error:  # torch's are of the second kind
        if not ran_out(error):
            raise
        first = (str(error).splitlines() or ["no message"])[0]
        raise ExhaustedError(
            f"{call.stage}: ran out of memory ({first}); nothing was made smaller to go on"
        ) from error


def record_failure(call: Call, bound: Bound, started: str, error: ClspError) -> None:
    """Write failed.json beside where the manifest would be: what was tried and why it ended."""
    record = {
        "schema_version": 1,
        "step": call.stage,
        "status": "failed",
        "error": without_places(str(error)),
        "spec": bound.spec,
        "spec_sha256": sha256_json(bound.spec),
        "code": call.code,
        **source_state(),
        "environment": _environment(call.threads),
        "started": started,
        "finished": _now(),
    }
    write_atomic(failure_of(call.manifest), canonical_json(record) + "\n")


def _predicate(
    call: Call, bound: Bound, outcome: Outcome, uid: str, started: str, seconds: float
) -> dict[str, Any]:
    """What a manifest says of a finished job, but for its inputs, outputs and tracking."""
    return {
        "step": call.stage,
        "run_uid": uid,
        "status": "completed",
        "externalParameters": {"spec": bound.spec, "arguments": bound.others},
        "internalParameters": {
            "code": call.code,
            **source_state(),
            **_environment(call.threads),
        },
        "runDetails": {"started": started, "finished": _now(), "seconds": round(seconds, 3)},
        "metrics": outcome.metrics,
        "counters": outcome.counters,
        "facts": outcome.facts,
    }


def run(call: Call) -> Artefact:
    """Run one job.

    Raises:
        DivergedError: If training turned non-finite; failed.json then says so.
        ExhaustedError: If memory ran out; failed.json then says so.
        ConfigError: If the spec or a flag is wrong.
        DataError: If an input is missing or corrupt, or an output cannot be written.
        IncompleteError: If another process is producing the same artefact.
    """
    bound = _bind(call)
    with exclusive(call.manifest):
        uid, source = uuid.uuid4().hex, source_state()
        about = {"stage": call.stage, "spec_sha256": sha256_json(bound.spec), "code": call.code}
        about |= {name: source[name] for name in ("git_commit", "dirty")}
        attempt = Attempt(call.manifest, uid, {**about, "time": _now()})
        clock = time.monotonic()
        try:
            artefact = _make(call, bound, uid)
        except BaseException as error:
            spent = round(time.monotonic() - clock, 3)
            ending = {"reason": reason_of(error), "seconds": spent, "time": _now()}
            attempt.end(status_of(error), **ending)
            raise
        made = {"manifest_sha256": sha256_file(call.manifest), "time": _now()}
        attempt.end("completed", seconds=round(time.monotonic() - clock, 3), **made)
    if bound.scratch is not None:
        shutil.rmtree(bound.scratch, ignore_errors=True)
    return artefact


def _make(call: Call, bound: Bound, uid: str) -> Artefact:
    """Everything of a job between its lines in the ledger; the artefact's lock is held."""
    home = call.manifest.parent
    earlier = leftovers.named(call.manifest)
    call.manifest.unlink(missing_ok=True)
    failure_of(call.manifest).unlink(missing_ok=True)
    for _, artefact in bound.inputs:
        artefact.verify()
    started, clock, dependencies = _now(), time.monotonic(), _dependencies(bound)
    expected = _expectations(call.stage)
    name = call.manifest.name.removesuffix("manifest.json").strip(".") or "artefact"
    made_from = sha256_json([call.code, [item["digest"] for item in dependencies]])
    with tracking.mirror(call.stage, str(call.manifest), bound.spec, made_from) as mirror:
        with staged(list(bound.outputs.values()), home, name) as lent:
            private = {flag: lent[path] for flag, path in bound.outputs.items()}
            mirror.follow(private.get("history"))
            try:
                outcome = _in_memory(call, {**bound.values, **private})
            except (DivergedError, ExhaustedError) as error:
                record_failure(call, bound, started, error)
                raise
        mirror.finish(outcome.metrics, bound.outputs.get("history"))
    predicate = _predicate(call, bound, outcome, uid, started, time.monotonic() - clock)
    predicate["internalParameters"] |= expected
    predicate |= {"tracking": mirror.on, "mlflow_run_id": mirror.run_id}
    names = {path.relative_to(home).as_posix(): path for path in bound.outputs.values()}
    artefact = write_manifest(call.manifest, names, dependencies, predicate)
    leftovers.sweep(artefact, earlier)
    return artefact

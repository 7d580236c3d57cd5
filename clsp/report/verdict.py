"""The words of verdicts, and what decides before any statistics."""

from collections.abc import Callable
from typing import Any

from clsp.report.statistics import DIGITS

REPRODUCED, WITHIN = "reproduced", "within tolerance"
NOT_REPRODUCED, NOT_RUN, INVALID = "not reproduced", "not run", "invalid"
REDUCED = "reduced profile"

Record = dict[str, Any]
Lock = Callable[[list[str]], str]  # why the claims file cannot judge these runs, or nothing


def rounded(value: Any) -> Any:
    """Every float in a record, in lists and mappings too, to as many digits as machines share."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def settle(record: Record, reduced: bool, locked: str, why: str) -> Record:
    """Put what decides before statistics in front of the verdict that statistics give.

    Args:
        record: With `indicative`, the verdict by statistics alone, or None.
        reduced: Whether the profile is a demonstration.
        locked: Why the claims file cannot judge these runs, or nothing.
        why: Why the claim cannot be judged, or nothing.
    """
    verdict, because = record["indicative"] or NOT_RUN, ""
    if locked:
        verdict, because = INVALID, locked
    elif why or reduced:
        verdict, because = NOT_RUN, "; ".join(filter(None, (REDUCED if reduced else "", why)))
    return {**record, "verdict": verdict, "because": because}

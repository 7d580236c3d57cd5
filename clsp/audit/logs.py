"""Step logs as checks read them: those read last stay in memory, within a bound."""

from pathlib import Path
from typing import Any

from clsp.runtime.history import read_history

Log = list[dict[str, Any]]
# Records of ten numbers take about 1.2 kB each, so that these take about 240 MB.
MOST = 200_000


class Logs:
    """Step logs by path. Several checks read every log; all logs of a large profile do not fit."""

    def __init__(self) -> None:
        self._kept: dict[Path, Log] = {}

    def read(self, path: Path) -> Log:
        """The records of a step log: numbers only, each with its `step`.

        Raises:
            OSError, ValueError: If it cannot be read or holds something else.
        """
        if path in self._kept:
            self._kept[path] = self._kept.pop(path)  # the newest stands last
            return self._kept[path]
        records = read_history(path)
        for number, record in enumerate(records, start=1):
            plain = isinstance(record, dict) and all(
                type(value) in (int, float) for value in record.values()
            )
            if not plain or type(record.get("step")) is not int:
                raise ValueError(f"line {number} is not a record of numbers with a step")
        self._kept[path] = records
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > MOST:
            del self._kept[next(iter(self._kept))]
        return records

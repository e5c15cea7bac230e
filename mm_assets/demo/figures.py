"""What a measurement says, and the memory of this process."""

import re
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One line of the report."""

    what: str
    value: str
    detail: str

    @property
    def number(self) -> float:
        """What the value begins with; a share of a hundred is a fraction."""
        found = re.match(r"[+-]?[\d.]+", self.value)
        assert found, self.value
        return float(found[0]) / (100 if self.value.endswith("%") else 1)


def peak_mb() -> int:
    """The most memory that this process had resident, in MiB, without what its parent had when it began."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.M)
    assert found
    return int(found[1]) >> 10

"""Figures, the table people read, and the JSON that tools read."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Goal:
    """What the median of a figure must reach."""

    bound: float
    at_most: bool = True

    def holds(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


def at_most(bound: float) -> Goal:
    """The median must not be above this."""
    return Goal(bound)


def at_least(bound: float) -> Goal:
    """The median must not be below this."""
    return Goal(bound, at_most=False)


@dataclass(frozen=True)
class Figure:
    """One value for each run."""

    measure: str
    name: str
    unit: str
    values: Sequence[float]
    goal: Goal | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else self.goal.holds(self.median)

    def as_json(self) -> dict[str, object]:
        return {
            "measure": self.measure,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
            "goal": str(self.goal) if self.goal else None,
            "reached": self.reached,
        }

    def as_row(self) -> tuple[str, ...]:
        marks = {None: "", True: "yes", False: "NO"}
        numbers = (_number(value) for value in (self.median, min(self.values), max(self.values)))
        return (self.measure, self.name, self.unit, *numbers, str(self.goal or ""), marks[self.reached])


@dataclass
class Report:
    """What a run of the bench found."""

    machine: dict[str, str]
    figures: list[Figure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """What was not measured, and why."""
    notes: list[str] = field(default_factory=list)
    """How the figures came about, where that is not plain."""

    def add(self, measure: str, name: str, unit: str, values: Sequence[float], goal: Goal | None = None) -> None:
        """Add a figure with one value for each run."""
        self.figures.append(Figure(measure, name, unit, values, goal))

    def versus(
        self,
        measure: str,
        name: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        goal: Goal | None = None,
    ) -> None:
        """Add the ratio of ours to theirs, pair by pair."""
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        self.add(measure, name, "ratio", ratios, goal)

    def table(self) -> str:
        """The table, the machine, and what is to be known beside it."""
        head = ("measure", "figure", "unit", "median", "min", "max", "goal", "reached")
        rows = [head, *(figure.as_row() for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        lines += ["", *(f"skipped: {what}: {why}" for what, why in self.skipped.items())]
        lines += [f"note: {note}" for note in self.notes]
        lines.append("machine: " + ", ".join(f"{name} {value}" for name, value in self.machine.items()))
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": dict(self.machine),
            "figures": [figure.as_json() for figure in self.figures],
            "skipped": self.skipped,
            "notes": self.notes,
        }
        path.write_text(json.dumps(content, indent=2) + "\n")


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if 3 <= column <= 5 else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()

"""
Saves, restores, lost training, a cloud and imports: Holdfast beside its peers and the limits.

    make bench              (or: python -m benchmarks.suite --help)

Each contestant runs in a process of its own, on the same models, in one run; the limits are
measured in that very process, in turns with it. Needs Linux. Only ratios travel to other machines.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import imports, machine, plots, table
from benchmarks.contestants import ALIKE, BACKGROUND, RESTORES, SAVES
from benchmarks.measuring import in_a_process

#: Beyond this size, in MB, there are half of the repeats, and fewer contestants.
_LARGE = 1000
#: What a contestant may need at the most, in sizes of the state: its model, the copies, the limits.
_ROOM = 6

Results = dict[str, Any]


class Suite:
    """
    Runs the parts, one after the other, and keeps what they find.

    Parameters:
        options (argparse.Namespace): as given on the command line.

    Attributes:
        results (dict): what was found, by part, size and contestant.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.results: Results = {"machine": machine.describe(options.directory)}

    def saves(self) -> Results:
        """What a save costs, by size and contestant."""
        return self._by_size("saves", {name: name for name in SAVES})

    def restores(self) -> Results:
        """What a resume costs, by size and contestant."""
        return self._by_size("restores", RESTORES)

    def training(self) -> Results:
        """What the background work costs the training, by contestant."""
        return self._of("training", {name: name for name in BACKGROUND}, self._options.background)

    def cloud(self) -> Results:
        """What both cost through `s3://`, by size."""
        # Here, since it belongs to the tests and is not needed by who leaves this part out.
        from tests.servers.s3 import RcloneServer

        with RcloneServer() as server:
            reach = {"bucket": server.bucket, "environment": server.environment()}
            return {f"{size:g}": self._one("cloud", size, **reach) for size in self._options.sizes}

    def imports(self) -> Results:
        """What imports cost, by what is imported."""
        return imports.compare(self._chosen(imports.IMPORTS), self._options.repeats)

    def _by_size(self, part: str, names: dict[str, str]) -> Results:
        return {f"{size:g}": self._of(part, names, size) for size in self._options.sizes}

    def _of(self, part: str, names: dict[str, str], size: float) -> Results:
        return {
            shown: self._one(part, size, name=names[shown], shown=shown)
            for shown in self._chosen(names)
            if size <= _LARGE or shown not in ALIKE
        }

    def _one(self, part: str, size: float, shown: str = "", **task: Any) -> Results:
        if machine.available() < _ROOM * size:
            return {"failed": f"left out: {_ROOM * size:,.0f} MB of memory were not free"}
        repeats = self._options.repeats if size <= _LARGE else (self._options.repeats + 1) // 2
        print(f"{part}, {size:g} MB, {shown or part} ... ", end="", file=sys.stderr, flush=True)
        begun = time.perf_counter()
        found = in_a_process(
            part,
            **task,
            megabytes=size,
            repeats=repeats,
            directory=self._options.directory,
            blocks=self._options.blocks,
        )
        print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        return found

    def _chosen(self, names: Iterable[str]) -> list[str]:
        wanted = [part.lower() for part in self._options.only]
        return [name for name in names if any(part in name.lower() for part in wanted)]


PARTS: dict[str, Callable[[Suite], Results]] = {
    "saves": Suite.saves,
    "training": Suite.training,
    "restores": Suite.restores,
    "cloud": Suite.cloud,
    "imports": Suite.imports,
}


def main() -> None:
    """Measure what was asked for, and show it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", type=_sizes, default=[30, 300], help="MB, such as 30,300,3000")
    parser.add_argument("--repeats", type=int, default=5, help="half of them beyond 1 GB")
    parser.add_argument("--background", type=float, default=1000, help="MB written beside training")
    parser.add_argument("--only", nargs="+", default=[""], help="contestants by part of a name")
    parser.add_argument("--blocks", type=int, default=62, help="of the model; four weights each")
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="on the disk to measure")
    parser.add_argument("--json", type=Path, help="keep what was found")
    parser.add_argument("--page", type=Path, help="put the tables and plots into this page")
    options = parser.parse_args()
    suite, begun = Suite(options), time.perf_counter()
    for part in options.parts:
        suite.results[part] = PARTS[part](suite)
        took = time.perf_counter() - begun
        suite.results["machine"]["took"] = f"all of it took {took / 60:.0f} minutes"
        if options.json:  # after each part, for it takes long
            options.json.write_text(json.dumps(suite.results, indent=1))
    print("\n".join(table.lines(suite.results)))
    if options.page:
        table.write(suite.results, options.page)
        plots.draw(suite.results, options.page.parents[1] / "images")


def _sizes(text: str) -> list[float]:
    return [float(size) for size in text.split(",")]


if __name__ == "__main__":
    main()

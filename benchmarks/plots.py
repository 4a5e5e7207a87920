"""
Pictures of what was measured, as small SVG files that are the same for the same results.

    python -m benchmarks.plots RESULTS.json [--into docs/images]
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.targets import BY_SIZE, TARGETS, Samples, Target, number

_OURS, _THEIRS, _AIM = "#0b6e4f", "#9aa5b1", "#c2410c"


def draw(results: dict[str, Any], into: Path) -> None:
    """Draw what there is something for; each picture shows the largest size that was measured."""
    into.mkdir(exist_ok=True)
    for target in (target for target in TARGETS if target.picture):
        found, size = results.get(target.part, {}), ""
        if found and target.part in BY_SIZE:
            largest = max(found, key=float)
            found, size = found[largest], f", {largest} MB"
        whole = {name: samples for name, samples in found.items() if "failed" not in samples}
        if whole:
            _draw(target, whole, f"{target.what}{size}", into / f"{target.picture}.svg")


def _draw(target: Target, found: dict[str, Samples], title: str, path: Path) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": path.name, "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(figsize=(7.5, 1.1 + 0.3 * len(found)), layout="constrained")
    for row, name in enumerate(reversed(found)):
        values = target.figure(found[name])
        middle = statistics.median(values)
        axes.barh(row, middle, color=_OURS if "Holdfast" in name else _THEIRS, height=0.7)
        axes.plot([min(values), max(values)], [row, row], color="black", linewidth=1)
        axes.annotate(
            number(middle),
            (max(0, *values), row),
            xytext=(4, 0),
            textcoords="offset points",
            verticalalignment="center",
        )
    axes.axvline(target.line, color=_AIM, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(found)), [name.replace("`", "") for name in reversed(found)])
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"dashed: what is aimed at, {target.aim}")
    figure.suptitle(title.replace("`", ""), x=0.01, horizontalalignment="left", fontsize=10)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    """Draw what an earlier run has kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    draw(json.loads(options.results.read_text()), options.into)


if __name__ == "__main__":
    main()

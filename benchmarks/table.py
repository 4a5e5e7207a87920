"""
The tables of what was measured, as Markdown: medians, and in brackets the least and the most.

    python -m benchmarks.table RESULTS.json [--page docs/explanation/speed.md]
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.targets import Results, of_state, ratios, share, with_next_step

BEGIN = "<!-- What follows is written by `make bench-page`. -->"
END = "<!-- What precedes was written by `make bench-page`. -->"


def write(results: Results, page: Path) -> None:
    """Put the tables between the markers of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join(lines(results))
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def lines(results: Results) -> Iterator[str]:
    """Every table there is something for."""
    yield f"{'; '.join(results['machine'].values())}."
    yield ""
    aims = list(targets.rows(results))
    if aims:
        yield from _head("What was aimed at", "target", "Holdfast", "the best of the others")
        yield from (_row(*aim) for aim in aims)
        yield ""
    for size, found in results.get("saves", {}).items():
        yield from _saves(f"Saves of {size} MB", found)
    if found := results.get("training"):
        yield from _training(found)
    for size, found in results.get("restores", {}).items():
        yield from _restores(f"Restores of {size} MB", found)
    if found := results.get("cloud"):
        yield from _cloud(found)
    if found := results.get("imports"):
        yield from _imports(found)


def _saves(title: str, found: Results) -> Iterator[str]:
    yield from _head(
        title,
        "`fit` waits, ms",
        "× copy",
        "with the next step, × copy",
        "durable, s",
        "× raw write",
        "memory while training, × state",
        "memory alone, MB",
    )
    for name, samples in _whole(found):
        yield _row(
            name,
            _cell(samples["blocked"], 1000, 0),
            _cell(ratios(samples["blocked"], samples["fit_copy"])),
            _cell(ratios(with_next_step(samples), samples["fit_copy"])),
            _cell(samples["durable"]),
            _cell(ratios(samples["durable"], samples["write"])),
            _cell(of_state(samples)),
            _cell(samples["extra_idle"], 1, 0),
        )
    limits = [samples for _, samples in _whole(found)]
    if limits:
        together = {
            each: [sample for samples in limits for sample in samples[each]]
            for each in ("copy", "copy_again", "write")
        }
        yield _row("*copy of the state, in new memory*", _cell(together["copy"], 1000, 0))
        yield _row("*the same into memory that is there*", _cell(together["copy_again"], 1000, 0))
        yield _row("*raw write and fsync*", "", "", "", _cell(together["write"]))
    yield from _tail(found)


def _training(found: Results) -> Iterator[str]:
    yield from _head("Training lost to a save in the background", "ms per GB")
    for name, samples in _whole(found):
        yield _row(name, _cell(samples["lost_per_gb"], 1000, 0))
    yield from _tail(found)


def _restores(title: str, found: Results) -> Iterator[str]:
    yield from _head(
        title, "s", "× read and hash", "× raw read", "× `load_weights`", "extra memory, MB"
    )
    for name, samples in _whole(found):
        yield _row(
            name,
            _cell(samples["restored"]),
            _cell(ratios(samples["restored"], samples["read_and_hash"])),
            _cell(ratios(samples["restored"], samples["read"])),
            "" if (part := share(found, name)) is None else f"{part:.2f}",
            _cell(samples["extra"], 1, 0),
        )
    limits = [samples for _, samples in _whole(found)]
    for shown, each in (("raw read", "read"), ("read and SHA-256", "read_and_hash")):
        if limits:
            yield _row(f"*{shown}*", _cell([one for samples in limits for one in samples[each]]))
    yield from _tail(found)


def _cloud(found: Results) -> Iterator[str]:
    yield from _head(
        "Through `s3://`", "save, s", "× boto3's upload", "restore, s", "× boto3's download"
    )
    for size, samples in _whole(found):
        yield _row(
            f"Holdfast, {size} MB",
            _cell(samples["saved"]),
            _cell(ratios(samples["saved"], samples["upload"])),
            _cell(samples["restored"]),
            _cell(ratios(samples["restored"], samples["download"])),
        )
        yield _row(
            f"*boto3, the file alone, {size} MB*",
            *(_cell(samples["upload"]), "", _cell(samples["download"])),
        )
    yield from _tail(found)


def _imports(found: Results) -> Iterator[str]:
    yield from _head("Imports", "ms")
    for name, samples in _whole(found):
        yield _row(f"`{name}`", _cell(samples["import"], 1000, 0))
    yield from _tail(found)


def _whole(found: Results) -> Iterator[tuple[str, Any]]:
    return ((name, samples) for name, samples in found.items() if "failed" not in samples)


def _tail(found: Results) -> Iterator[str]:
    for name, samples in found.items():
        if "failed" in samples:
            yield _row(name, samples["failed"].replace("|", "/"))
    yield ""


def _head(title: str, *columns: str) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    yield _row("", *columns)
    yield f"|---{'|---:' * len(columns)}|"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(samples: Sequence[float], scale: float = 1, digits: int = 2) -> str:
    least, middle, most = (
        f"{each * scale:,.{digits}f}"
        for each in (min(samples), statistics.median(samples), max(samples))
    )
    return f"{middle} ({least} to {most})"


def main() -> None:
    """Show what an earlier run has kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    print("\n".join(lines(results)))
    if options.page is not None:
        write(results, options.page)


if __name__ == "__main__":
    main()

"""What was aimed at, beside what was reached: the first of the tables."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Samples = dict[str, list[float]]
Results = dict[str, Any]
#: The parts whose contestants stand under a size.
BY_SIZE = ("saves", "restores")


@dataclass(frozen=True)
class Target:
    """
    A figure of Holdfast's, and what it should be.

    Attributes:
        what (str): in words.
        aim (str): what was aimed at, in words.
        part (str): of the results.
        unit (str): what stands behind the figure.
        figure (Callable): the samples of it, from those of one contestant.
        who (str): which contestant is Holdfast.
        picture (str): the name of the picture that shows it; some have none.
        line (float): where that picture shows what was aimed at.
    """

    what: str
    aim: str
    part: str
    unit: str
    figure: Callable[[Samples], list[float]]
    who: str = "Holdfast `ModelCheckpoint`"
    picture: str = ""
    line: float = 0


def ratios(samples: list[float], limits: list[float]) -> list[float]:
    """Each sample by the limit that was measured beside it."""
    return [one / limit for one, limit in zip(samples, limits, strict=True)]


def with_next_step(samples: Samples) -> list[float]:
    """What `fit` waits, and what the step after that takes longer."""
    pairs = zip(samples["blocked"], samples["next_step"], strict=True)
    return [waits + later for waits, later in pairs]


def of_state(samples: Samples) -> list[float]:
    """The memory that a save takes while training goes on, in sizes of the state."""
    return [extra / samples["state"][0] for extra in samples["extra_training"]]


def number(value: float) -> str:
    """A figure as a reader wants it: decimals only while they tell something."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"


TARGETS = (
    Target(
        "time that `fit` waits for a save",
        "≤ 0.5 × one memory copy of the state, 0.2 × at 3 GB",
        "saves",
        " ×",
        lambda samples: ratios(samples["blocked"], samples["fit_copy"]),
    ),
    Target(
        "time that `fit` waits, with what the next step takes longer",
        "≤ 1.2 × one memory copy",
        "saves",
        " ×",
        lambda samples: ratios(with_next_step(samples), samples["fit_copy"]),
        picture="speed-fit-waits",
        line=1.2,
    ),
    Target(
        "save until durable, hash included",
        "≤ 1.2 × raw write and fsync",
        "saves",
        " ×",
        lambda samples: ratios(samples["durable"], samples["write"]),
        "Holdfast `store.save`",
        picture="speed-durable",
        line=1.2,
    ),
    Target(
        "training lost to a save in the background",
        "≤ 100 ms per GB",
        "training",
        " ms",
        lambda samples: [1000 * lost for lost in samples["lost_per_gb"]],
        picture="speed-training-lost",
        line=100,
    ),
    Target(
        "extra memory of a save while training goes on",
        "≤ 1.1 × the state",
        "saves",
        " ×",
        of_state,
    ),
    Target(
        "extra memory of a save that is waited for, so nothing is copied",
        "≤ 150 MB",
        "saves",
        " MB",
        lambda samples: samples["extra_idle"],
        "Holdfast `store.save`",
    ),
    Target(
        "restore into a live model, verified",
        "≤ 1.3 × reading and hashing once",
        "restores",
        " ×",
        lambda samples: ratios(samples["restored"], samples["read_and_hash"]),
        "Holdfast `store.restore`",
        picture="speed-restores",
        line=1.3,
    ),
    Target(
        "`import holdfast`",
        "≤ 50 ms",
        "imports",
        " ms",
        lambda samples: [1000 * each for each in samples["import"]],
        "import holdfast",
    ),
    Target(
        "`import holdfast.keras` after Keras",
        "nothing",
        "imports",
        " ms",
        lambda samples: [1000 * each for each in samples["import"]],
        "import holdfast.keras, after keras",
    ),
)


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """A row for each target that something was found for: Holdfast, and the best of the others."""
    for target in TARGETS:
        found = results.get(target.part, {})
        by_size = found if target.part in BY_SIZE else {"": found}
        ours, theirs = [], []
        for size, samples in by_size.items():
            behind = f" at {size} MB" if size else ""
            figures = _medians(target, samples)
            if target.who in figures:
                ours.append(f"{number(figures[target.who])}{target.unit}{behind}")
            others = {name: value for name, value in figures.items() if "oldfast" not in name}
            if others and target.part != "imports":
                best = min(others, key=others.__getitem__)
                theirs.append(f"{number(others[best])}{target.unit}{behind} ({best})")
        if ours:
            yield target.what, target.aim, ", ".join(ours), ", ".join(theirs)
    shares = {size: share(found) for size, found in results.get("restores", {}).items()}
    told = [f"{value:.2f} × at {size} MB" for size, value in shares.items() if value is not None]
    if told:
        yield (
            "restore into a live model, beside Keras's `load_weights`",
            "≤ 0.33 ×",
            ", ".join(told),
            "",
        )


def share(found: Results, name: str = "Holdfast `store.restore`") -> float | None:
    """What a restore takes of the time of `load_weights`, if both were measured."""
    medians = [
        statistics.median(samples["restored"])
        for samples in (found.get(each, {}) for each in (name, "Keras `load_weights`"))
        if "restored" in samples
    ]
    return medians[0] / medians[1] if len(medians) == 2 else None


def _medians(target: Target, found: Results) -> dict[str, float]:
    return {
        name: statistics.median(target.figure(samples))
        for name, samples in found.items()
        if "failed" not in samples
    }

"""What a callback's first argument means."""

from pathlib import Path

import pytest

from holdfast.errors import InvalidInputError
from holdfast.keras.template import Template, split

PLACES: dict[str | Path, tuple[str | Path, str]] = {
    "runs/a/best.keras": ("runs/a", "best.keras"),
    "../best.keras": ("..", "best.keras"),
    "/best.keras": ("/", "best.keras"),
    "~/a/best.keras": ("~/a", "best.keras"),
    "gs://bucket/run/w-{epoch}.keras": ("gs://bucket/run", "w-{epoch}.keras"),
    "s3://bucket/best.keras": ("s3://bucket", "best.keras"),
    "file:///runs/a/best.keras": ("file:///runs/a", "best.keras"),
    "runs/{{a}}/best.keras": ("runs/{a}", "best.keras"),
    Path("runs/a::b/best.keras"): (Path("runs/a::b"), "best.keras"),
    Path("/best.keras"): (Path("/"), "best.keras"),
    "best.keras": ("best", "best.keras"),
    "./best.keras": ("best", "best.keras"),
    Path("best.keras"): (Path("best"), "best.keras"),
    "last.weights.h5": ("last", "last.weights.h5"),
    "my.model.keras": ("my.model", "my.model.keras"),
    "{epoch}.keras": ("checkpoints", "{epoch}.keras"),
    "model.{epoch:02d}-{val_loss:.2f}.h5": ("model", "model.{epoch:02d}-{val_loss:.2f}.h5"),
    "a-{epoch}-of-b.keras": ("a-of-b", "a-{epoch}-of-b.keras"),
    "model": ("model", "model"),
    "runs/w-{epoch:02d}-{val_acc:.3f}": ("runs", "w-{epoch:02d}-{val_acc:.3f}"),
    "model.{epoch:02d}": ("model", "model.{epoch:02d}"),
    "w-{epoch}.weights.json": ("w", "w-{epoch}.weights.json"),
}


@pytest.mark.parametrize(("given", "expected"), PLACES.items(), ids=str)
def test_the_last_component_is_the_file(
    given: str | Path, expected: tuple[str | Path, str]
) -> None:
    assert split(given) == expected


NAMES: dict[str, str] = {
    "m.keras": "m.keras",
    "{epoch:02d}-{batch:03d}.keras": "07-042.keras",
    "{val_loss:.2e}.keras": "1.25e-01.keras",
    "{val_acc:.1f}-{val_accuracy:.1f}.keras": "0.8-0.8.keras",
    "{epoch.real}.keras": "7.keras",
    "{tag:_>5}-{tag[0]}.keras": "__run-r.keras",
    "{tag!r:.0}x.keras": "x.keras",
    "{lost:.3f}-{val_loss:.1f}.keras": "none-0.1.keras",
    "{lost.part}-{tag[9]}.keras": "none-none.keras",
    "{tag:.3f}.keras": "none.keras",
    "{nothing}.keras": "None.keras",
    "{nothing:.3f}.keras": "none.keras",
    "{nan:.2f}.keras": "nan.keras",
    "w.{epoch:02d}-{nan:.2f}-{val_loss:.2f}": "w.07-nan-0.12",
    "w-{lost}": "w-none",
}
LOGS = {"val_loss": 0.125, "val_accuracy": 0.75, "tag": "run", "nothing": None, "nan": float("nan")}


@pytest.mark.parametrize(("text", "name"), NAMES.items(), ids=str)
def test_a_name_is_filled_as_keras_fills_it(text: str, name: str) -> None:
    filled, missing = Template(text).fill(epoch=7, batch=42, logs=LOGS)

    assert filled == name
    assert bool(missing) == ("none" in name)


OTHERS = {
    "w-{tag}": "w-m.h5' here.*its suffix is not that of the template",
    "w.{epoch:x}": "w.a' here.*does not say how to save a model",
}


@pytest.mark.parametrize(("text", "message"), OTHERS.items(), ids=str)
def test_a_name_never_becomes_one_of_another_format(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Template(text).fill(epoch=10, batch=None, logs={"tag": "m.h5"})


@pytest.mark.parametrize(
    "text",
    [
        *("con.keras", "a" * 129 + ".keras", "-m.keras", "{epoch:{width}}"),
        *("training", "m.{tag}", "cp.ckpt", "m."),
    ],
)
def test_a_name_that_cannot_be_kept_is_told_at_once(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Template(text)

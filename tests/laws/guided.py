"""
Records that Atheris makes up, led by the code that they reach; ends with the first that does harm.

`make fuzz` installs `atheris` beside the tests and runs this for ten minutes; the options are those
of libFuzzer.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["holdfast"]):
    from tests.laws.fuzzing import HONEST, KINDS, judged, sealed


def look_at(data: bytes) -> None:
    """Read it as every kind of record, as it is and under a digest that fits."""
    for kind in KINDS:
        for record in (data, sealed(data)):
            trouble, _ = judged(kind, record)
            assert not trouble, f"{kind.name}: {trouble} from {record!r}"


def main() -> None:
    """Begin with honest records, whole and without their digests."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as directory:
        for number, record in enumerate(HONEST):
            Path(directory, f"{number}-whole").write_bytes(record)
            Path(directory, f"{number}-head").write_bytes(record.rpartition(b',\n  "digest"')[0])
        atheris.Setup([*sys.argv, directory], look_at)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

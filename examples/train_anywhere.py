"""
Train a small model, save into any place, and go on from there when started again.

    python examples/train_anywhere.py runs/digits
    python examples/train_anywhere.py s3://bucket/runs/digits
    python examples/train_anywhere.py gs://bucket/runs/digits
    python examples/train_anywhere.py "gdrive://My Drive/runs/digits"

It needs NumPy and, for a cloud, the extra of that place: `pip install "holdfast[s3]"`. Credentials
and endpoints come from where each cloud's users keep them. Kill it at any moment, start it again in
the same way, and it ends with the same bytes as if nothing had happened.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np

import holdfast

BATCH, FEATURES = 64, 32


class Model:
    """Logistic regression, trained by gradient descent with momentum; it is its own state."""

    def __init__(self) -> None:
        self.weights = np.zeros(FEATURES)
        self.momentum = np.zeros(FEATURES)
        self.step = 0

    def train(self) -> float:
        """One step; the batch is a function of the step, so a resumed run sees the same."""
        generator = np.random.default_rng(self.step)
        inputs = generator.normal(size=(BATCH, FEATURES))
        labels = inputs @ np.linspace(-1, 1, FEATURES) > 0
        guesses = 1 / (1 + np.exp(-inputs @ self.weights))
        gradient = inputs.T @ (guesses - labels) / BATCH
        self.momentum = 0.9 * self.momentum - 0.1 * gradient
        self.weights = self.weights + self.momentum
        self.step += 1
        return float(np.mean((guesses > 0.5) == labels))

    def snapshot(self) -> "Snapshot":
        """A copy that later steps do not show in."""
        return Snapshot(self.weights.copy(), self.momentum.copy(), self.step)

    def restore(self, directory: Path) -> None:
        """Take the values of a checkpoint over."""
        with np.load(directory / "model.npz", allow_pickle=False) as kept:
            weights, momentum, step = kept["weights"], kept["momentum"], int(kept["step"])
        self.weights, self.momentum, self.step = weights, momentum, step


class Snapshot:
    """The values of one moment."""

    def __init__(self, weights: np.ndarray, momentum: np.ndarray, step: int) -> None:
        self.arrays = {"weights": weights, "momentum": momentum, "step": np.array(step)}

    def write_to(self, directory: Path) -> None:
        """Write them as one file."""
        np.savez(directory / "model.npz", **self.arrays)


def main() -> None:
    """Resume, train, save every few steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("place", help="a directory or a URL")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--every", type=int, default=100, help="steps between two saves")
    arguments = parser.parse_args()

    model = Model()
    store = holdfast.open_store(arguments.place, retention=holdfast.KeepLast(3))
    store.recover()  # what an earlier process had staged and could not send any more
    if store.latest() is not None:
        store.restore(model)
    print(f"starts after step {model.step} of {arguments.steps}", flush=True)

    with holdfast.Saver(store) as saver:
        while model.step < arguments.steps:
            accuracy = model.train()
            if model.step % arguments.every == 0 or model.step == arguments.steps:
                saved = saver.save(model, step=model.step, metrics={"accuracy": accuracy})
                saved.add_done_callback(lambda done: print(f"saved {done.result()}", flush=True))

    digest = hashlib.sha256(model.weights.tobytes() + model.momentum.tobytes()).hexdigest()
    print(f"ended with {digest[:16]}")


if __name__ == "__main__":
    main()

"""
Train in a loop of your own, kill it at any moment, and let it go on to the same bytes.

    python examples/custom_loop.py

It needs `holdfast[tensorflow]` and scikit-learn, and takes about fifteen seconds on two cores.

A network is trained on scikit-learn's handwritten digits, with `tf.GradientTape` and batches from
`tf.data`, and saved with a `CheckpointManager`, three times:

  1. by a process that is killed with SIGKILL after a few saves,
  2. by one that is started again in the same way, resumes and finishes,
  3. by the same one from the beginning, never interrupted, to compare with.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

STEPS, EVERY = 120, 20
#: How many checkpoints the first process may commit before it is killed.
SAVED_BEFORE_THE_KILL = 3
#: On the processor, whose kernels repeat to the bit, and without TensorFlow's notes on start-up.
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> None:
    """Play the two processes, and compare what the trainings ended with."""
    with tempfile.TemporaryDirectory(prefix="holdfast-loop-") as directory:
        killed, alone = str(Path(directory, "killed")), str(Path(directory, "alone"))
        print("1. train, and be killed", flush=True)
        with training(killed) as first:
            for number, _ in enumerate(lines(first, "saved"), start=1):
                if number == SAVED_BEFORE_THE_KILL:
                    first.send_signal(signal.SIGKILL)
        check(first.returncode == -signal.SIGKILL, "it ended before it could be killed")

        print("2. start the same script again; 3. train once more, never interrupted", flush=True)
        with training(killed, alone) as second:
            told = list(lines(second))
        starts = [line for line in told if line.startswith("starts")]
        ends = [line for line in told if line.startswith("ended")]
        check(second.returncode == 0, "the training failed")
        check(starts[0] != starts[1], "it did not resume")
        check(ends[0] == ends[1], "the resumed run ended elsewhere than the uninterrupted one")
        print(f"both {ends[0]}: equal")


def train(place: str) -> None:
    """The training script: what a user writes."""
    # Here and not above: the process that kills has no use for them, and they take seconds.
    import keras
    import tensorflow as tf
    from sklearn.datasets import load_digits

    from holdfast.tensorflow import CheckpointManager

    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    batches = (
        tf.data.Dataset.from_tensor_slices(((images / 16.0).astype("float32"), labels))
        .shuffle(1_000, seed=0)
        .repeat()
        .batch(32)
    )
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
        ]
    )
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    iterator = iter(batches)
    step = tf.Variable(0, dtype=tf.int64)
    # What dropout draws from is no part of a checkpoint of the model, so it is given by itself.
    seeds = [variable for variable in model.variables if "seed_generator" in variable.path]
    checkpoint = tf.train.Checkpoint(
        model=model, optimizer=optimizer, iterator=iterator, step=step, seeds=seeds
    )
    manager = CheckpointManager(
        checkpoint, place, max_to_keep=3, step_counter=step, checkpoint_interval=EVERY
    )
    manager.restore_or_initialize()
    print(f"starts after step {int(step)} of {STEPS}", flush=True)

    @tf.function
    def train_step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    while step < STEPS:
        loss = train_step(*next(iterator))
        step.assign_add(1)
        if manager.save(checkpoint_number=step):  # None, until the interval has passed
            print(f"saved step {int(step)}, loss {float(loss):.4f}", flush=True)
    manager.save(checkpoint_number=step, check_interval=False)

    variables = [*model.variables, *optimizer.variables]
    digest = hashlib.sha256(b"".join(variable.numpy().tobytes() for variable in variables))
    print(f"ended with {digest.hexdigest()[:16]}")


def training(*places: str) -> subprocess.Popen[str]:
    """Start the process that trains."""
    command = [sys.executable, __file__, "--train", *places]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def lines(process: subprocess.Popen[str], beginning: str = "") -> Iterator[str]:
    """The lines that it prints, all shown, and those with this beginning handed on."""
    assert process.stdout is not None
    for line in process.stdout:
        print(f"   {line}", end="", flush=True)
        if line.startswith(beginning):
            yield line.rstrip()


def check(condition: object, otherwise: str) -> None:
    """End with an error where the demonstration did not show what it should."""
    if not condition:
        sys.exit(f"the demonstration failed: {otherwise}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--train", nargs="+", metavar="PLACE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        for each in arguments.train:
            train(each)
    else:
        main()

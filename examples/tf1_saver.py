"""
Keep what the `Saver` of TensorFlow 1 writes: the newest five, one a day for three days, and a pin.

    python examples/tf1_saver.py runs/digits
    python examples/tf1_saver.py s3://bucket/runs/digits

It needs `holdfast[tensorflow]` and scikit-learn. A week of training, with a save every six hours,
is played in seconds: the clock that the store stamps its checkpoints with is handed in. Leave it
out in a run of your own, and open the store with `holdfast.open_store`.
"""

import argparse
from datetime import UTC, datetime, timedelta

import tensorflow as tf
from sklearn.datasets import load_digits

from holdfast import CheckpointStore, KeepEvery, KeepLast
from holdfast.backends import open_backend

v1 = tf.compat.v1
v1.disable_eager_execution()

SAVES_A_DAY, STEPS_BETWEEN = 4, 25
IMAGES, LABELS = load_digits(return_X_y=True)


class Clock:
    """The time of day of the play."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def main() -> None:
    """Four days, then three more from where they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("place", help="a directory or a URL")
    clock = Clock()
    store = CheckpointStore(
        open_backend(parser.parse_args().place),
        retention=KeepLast(5) | KeepEvery(days=1, last=3),  # max_to_keep=5, and one a day
        clock=clock,
    )
    train(store, clock, days=4)
    best = store.best("accuracy")
    store.pin(best, "paper")  # the interesting one stays, whatever the rules say
    print(f"pinned {best} as 'paper'")
    train(store, clock, days=3)  # in a new graph and a new session, as in a new process

    print(store.prune(dry_run=True))
    latest = store.latest()
    print(f"the latest is of global step {latest.step}: {[file.path for file in latest.files]}")
    print(f"'paper' is of global step {store.find('paper').step}")


def train(store: CheckpointStore, clock: Clock, *, days: int) -> None:
    """The training script: what a user of TensorFlow 1 writes."""
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 64])
        labels = v1.placeholder(tf.int64, [None])
        weights = v1.get_variable("weights", [64, 10], initializer=v1.zeros_initializer())
        biases = v1.get_variable("biases", [10], initializer=v1.zeros_initializer())
        scores = tf.matmul(images / 16, weights) + biases
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(scores, 1), labels), tf.float32))
        global_step = v1.train.get_or_create_global_step()
        optimizer = v1.train.AdamOptimizer(0.001)
        train_op = optimizer.minimize(tf.reduce_mean(losses), global_step)
        saver = v1.train.Saver(max_to_keep=None)  # the store's retention removes

        session.run(v1.global_variables_initializer())
        if store.latest() is not None:
            files = store.download()  # the newest good one, every byte hashed
            saver.restore(session, str(next(files.glob("*.index")).with_suffix("")))
        print(f"starts after global step {session.run(global_step)}")

        feed = {images: IMAGES, labels: LABELS}
        for _ in range(days * SAVES_A_DAY):
            for _ in range(STEPS_BETWEEN):
                session.run(train_op, feed)
            step = int(session.run(global_step))
            with store.stage(step=step) as draft:
                prefix = str(draft.directory / "model.ckpt")
                saver.save(session, prefix, global_step=step, write_state=False)
                draft.metrics["accuracy"] = float(session.run(accuracy, feed))
            clock.now += timedelta(days=1) / SAVES_A_DAY


if __name__ == "__main__":
    main()

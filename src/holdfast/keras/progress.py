"""Where in its training a model stands, counted from what Keras tells its callbacks."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Position:
    """
    Where in its training a model stands.

    Attributes:
        epoch (int): epochs finished, which is the number, from 0, of the one to go on with.
        batch (int): batches trained in that one; 0 between epochs. After the last batch it is their
            number until the epoch has ended, validation included.
        step (int): batches trained since the run began, over all its processes.
        steps_per_epoch (int | None): batches in an epoch, where Keras knows it.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    steps_per_epoch: int | None = None

    @property
    def is_inside_epoch(self) -> bool:
        """Whether the epoch to go on with has been trained in part."""
        return self.batch > 0


class Progress:
    """
    Counts epochs and batches.

    Attributes:
        position (Position): where the training stands; set it to go on from elsewhere.
        epoch (int): the epoch that runs or has ended last, from 0.
    """

    def __init__(self) -> None:
        self.position = Position()
        self.epoch = 0

    def begin_epoch(self, epoch: int, steps: int | None) -> None:
        """
        An epoch begins.

        Parameters:
            epoch (int): its number, from 0.
            steps (int | None): how many batches it has, if that is known.
        """
        self.epoch = epoch
        self.position = Position(epoch=epoch, step=self.position.step, steps_per_epoch=steps)

    def end_batch(self, batch: int) -> None:
        """
        A batch, or a block of them, was trained.

        Parameters:
            batch (int): the last one's number in the epoch, from 0. Under `steps_per_execution` it
                may pass the real number; then the known length of the epoch counts.
        """
        trained, steps = batch + 1, self.position.steps_per_epoch
        if steps is not None:
            trained = min(trained, steps)
        step = self.position.step + trained - self.position.batch
        self.position = replace(self.position, batch=trained, step=step)

    def end_epoch(self, epoch: int, *, has_left: bool) -> None:
        """
        An epoch has ended.

        Parameters:
            epoch (int): its number, from 0.
            has_left (bool): the training was asked to stop after a batch. Then Keras calls an epoch
                ended of which batches may be left, and it does not count as finished.
        """
        self.epoch = epoch
        steps = self.position.steps_per_epoch
        if not (has_left and self.position.batch and self.position.batch != steps):
            self.position = replace(self.position, epoch=epoch + 1, batch=0)

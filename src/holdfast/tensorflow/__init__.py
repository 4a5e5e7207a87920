"""Holdfast for TensorFlow: `tf.train.CheckpointManager` over any storage, and a state."""

from holdfast.tensorflow.manager import CheckpointManager as CheckpointManager
from holdfast.tensorflow.state import CheckpointState as CheckpointState

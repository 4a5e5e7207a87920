"""Holdfast for Keras: callbacks and a state that keep a training run and resume it."""

from holdfast.keras.callbacks import ModelCheckpoint as ModelCheckpoint
from holdfast.keras.capture import KerasState as KerasState
from holdfast.keras.progress import Position as Position

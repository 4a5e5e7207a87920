"""Holdfast for Keras: callbacks and a state that keep a training run and resume it."""

from holdfast.keras.backup_and_restore import BackupAndRestore as BackupAndRestore
from holdfast.keras.capture import KerasState as KerasState
from holdfast.keras.companions import Stateful as Stateful
from holdfast.keras.data import ReplayableDataset as ReplayableDataset
from holdfast.keras.loading import load_model as load_model
from holdfast.keras.model_checkpoint import ModelCheckpoint as ModelCheckpoint
from holdfast.keras.progress import Position as Position

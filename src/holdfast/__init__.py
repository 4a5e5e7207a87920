"""
Keeps the checkpoints of a training run in any storage, and resumes the run from them.

    store = holdfast.open_store("runs/resnet", retention=KeepLast(3) | KeepBest("val_loss"))
    store.save("model.keras", step=1200, metrics={"val_loss": 0.31})
    store.latest()

Importing this loads no framework, no NumPy and no storage library.
"""

from holdfast.checkpoint import Checkpoint as Checkpoint
from holdfast.checkpoint import CheckpointId as CheckpointId
from holdfast.checkpoint import File as File
from holdfast.errors import AccessDenied as AccessDenied
from holdfast.errors import AlreadyExists as AlreadyExists
from holdfast.errors import CheckpointError as CheckpointError
from holdfast.errors import CheckpointWarning as CheckpointWarning
from holdfast.errors import CorruptionError as CorruptionError
from holdfast.errors import DeadlineExceeded as DeadlineExceeded
from holdfast.errors import FormatError as FormatError
from holdfast.errors import InvalidInputError as InvalidInputError
from holdfast.errors import NotFoundError as NotFoundError
from holdfast.errors import PendingSaveError as PendingSaveError
from holdfast.errors import StorageError as StorageError
from holdfast.errors import StorageFull as StorageFull
from holdfast.errors import SupersededError as SupersededError
from holdfast.fetching import Damage as Damage
from holdfast.fetching import Report as Report
from holdfast.preemption import Preemption as Preemption
from holdfast.preflight import Preflight as Preflight
from holdfast.retention import KeepAll as KeepAll
from holdfast.retention import KeepBest as KeepBest
from holdfast.retention import KeepEvery as KeepEvery
from holdfast.retention import KeepLast as KeepLast
from holdfast.retention import KeepWithin as KeepWithin
from holdfast.retention import Kept as Kept
from holdfast.retention import PrunePlan as PrunePlan
from holdfast.retention import Rule as Rule
from holdfast.saver import Saver as Saver
from holdfast.staging import Draft as Draft
from holdfast.state import Files as Files
from holdfast.state import Snapshot as Snapshot
from holdfast.state import State as State
from holdfast.store import CheckpointStore as CheckpointStore
from holdfast.store import open_store as open_store
from holdfast.version import __version__ as __version__

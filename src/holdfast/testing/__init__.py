"""
What authors of backends, rules and states test their own with.

Each plug has its contract as a class of tests: subclass it, hand it your thing, and pytest does the
rest. Needs pytest and hypothesis: `pip install "holdfast[testing]"`.
"""

import pytest

# Before they are imported, so that their assertions tell what they compared.
pytest.register_assert_rewrite(
    "holdfast.testing.backends", "holdfast.testing.rules", "holdfast.testing.states"
)

from holdfast.testing.backends import BackendContract as BackendContract  # noqa: E402
from holdfast.testing.faults import Died as Died  # noqa: E402
from holdfast.testing.faults import Fault as Fault  # noqa: E402
from holdfast.testing.faults import FaultBackend as FaultBackend  # noqa: E402
from holdfast.testing.memory import MemoryBackend as MemoryBackend  # noqa: E402
from holdfast.testing.rules import RuleContract as RuleContract  # noqa: E402
from holdfast.testing.rules import histories as histories  # noqa: E402
from holdfast.testing.states import StateContract as StateContract  # noqa: E402

"""
What authors of backends, rules and states test their own with.

Needs pytest and hypothesis: `pip install "holdfast[testing]"`.
"""

from holdfast.testing.memory import MemoryBackend as MemoryBackend

"""The backend in memory keeps the contract."""

import pytest

from holdfast.testing.backends import BackendContract
from holdfast.testing.memory import MemoryBackend


class TestMemory(BackendContract):
    keeps_in_memory = True

    @pytest.fixture
    def backend(self):
        return MemoryBackend()

    def behind(self, backend, key):
        found = backend.objects.get(key)
        return found and found[0]

"""
What an import costs, in fresh processes and in turns.

    make bench-imports      (or: python -m benchmarks.suite --parts imports)
"""

import os
import subprocess
import sys
from typing import Any

from benchmarks.measuring import ENVIRONMENT, failure

#: What is imported, and what had been imported before.
IMPORTS = {
    "import holdfast": ("holdfast", ""),
    "import keras": ("keras", ""),
    "import holdfast.keras, after keras": ("holdfast.keras", "keras"),
    "import holdfast.tensorflow, after tensorflow": ("holdfast.tensorflow", "tensorflow"),
    "import orbax.checkpoint": ("orbax.checkpoint", ""),
}
#: The first round leaves what it has compiled, as an installed package has it.
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
_CODE = "import time;{before};t=time.perf_counter();import {module};print(time.perf_counter()-t)"


def compare(names: list[str], repeats: int) -> dict[str, Any]:
    """Import each so often; the first round only warms the page cache."""
    found: dict[str, Any] = {name: {"import": []} for name in names}
    for turn in range(repeats + 1):
        for name in names:
            module, before = IMPORTS[name]
            code = _CODE.format(module=module, before=f"import {before}" if before else "pass")
            ran = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **ENVIRONMENT, **_COMPILED},
            )
            if ran.returncode:
                found[name] = failure(ran)
            elif turn and "import" in found[name]:
                found[name]["import"].append(float(ran.stdout.splitlines()[-1]))
    return found

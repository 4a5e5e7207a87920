"""The examples run, as `make demo` and the pages say."""

import subprocess
import sys
from pathlib import Path

from tests import share

EXAMPLES = Path(__file__).parents[1] / "examples"
#: What a short run changes in the demonstration: half as many epochs, killed in the second.
SHORTER = {
    "\nEPOCHS = 4\n": "\nEPOCHS = 2\n",
    "\nSAVED_BEFORE_THE_KILL = 4\n": "\nSAVED_BEFORE_THE_KILL = 3\n",
}


def test_a_run_killed_in_the_middle_of_a_save_resumes_and_ends_as_one_never_interrupted(
    tmp_path: Path,
) -> None:
    text = (EXAMPLES / "kill_and_resume.py").read_text()
    for whole, shorter in () if share.LONG else SHORTER.items():
        assert whole in text
        text = text.replace(whole, shorter)
    script = tmp_path / "kill_and_resume.py"
    script.write_text(text)

    ran = subprocess.run([sys.executable, script], capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "exit code -9 (SIGKILL)" in ran.stdout
    assert ran.stdout.count("  equal") == 3

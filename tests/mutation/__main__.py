"""
How many small mistakes in the code that commits, prunes and sweeps some test notices.

`python -m tests.mutation` tries all of them on two processes and prints the table;
`python -m tests.mutation removal` those of a module, `removal:57` one of them;
`python -m tests.mutation --every 40 --first 7` a share.
"""

import argparse
import sys
import time
from collections import defaultdict

from tests.mutation import played


def main() -> int:
    """Print the table, and what survived; the exit code tells whether the score is high enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", help="modules, or one mistake as module:number")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--tests", nargs="*", default=played.FILES, help="files; all by default")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    began = time.monotonic()
    wanted = played.wanted(given.which, given.first, given.every)
    found: dict[str, list[played.Outcome]] = defaultdict(list)
    traces = played.traced(given.tests)
    for outcome in played.outcomes(wanted, traces, files=given.tests, processes=given.processes):
        found[outcome.module].append(outcome)
        if outcome.survived or len(wanted) == 1:
            print(outcome, flush=True)
    print(played.table(found))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return int(any(played.score(each) < played.TARGET for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Which mistakes are tried, by which tests, and what came of it."""

import ast
import functools
import importlib
import json
import multiprocessing
import os
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from tests.mutation import trial
from tests.mutation.mutants import Mutant, mutants

#: The code that commits, prunes, sweeps, and reads and writes manifests and paths: what
#: `make coverage` measures, too, by the same tests.
_MEASURED = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["coverage"]["run"]["include"]
MODULES = tuple(
    path.removeprefix("src/holdfast/").removesuffix(".py").replace("/", ".") for path in _MEASURED
)
_TESTS = Path(__file__).with_name("tests.txt")
FILES = tuple(_TESTS.read_text().split())
#: The share of the mistakes that has to be noticed in each module.
TARGET = 0.9
#: Seconds that the tests of one mistake may take together, the quickest and narrowest first.
_SECONDS = float(os.environ.get("HOLDFAST_MUTATION_SECONDS", "10"))
_SOURCE = Path("src/holdfast")
_EQUIVALENT = Path(__file__).with_name("equivalent.txt")

#: By test: how long it takes, and by path the lines that it runs.
Traces = Mapping[str, tuple[float, Mapping[str, Sequence[int]]]]


@dataclass(frozen=True)
class Outcome:
    """
    What came of one mistake.

    Attributes:
        module, number, line, name, what: which mistake, as `Mutant`.
        noticed: the test that failed, or how the process ended; empty if all passed.
        tests: how many tests there were for it.
    """

    module: str
    number: int
    line: int
    name: str
    what: str
    noticed: str
    tests: int

    @property
    def survived(self) -> bool:
        return not self.noticed

    def __str__(self) -> str:
        path = self.module.replace(".", "/")
        end = f"noticed by {self.noticed}" if self.noticed else f"survived {self.tests} tests"
        return (
            f"{path}.py:{self.line} {self.name}: {self.what}: {end}"
            f"  (python -m tests.mutation {self.module}:{self.number})"
        )


def wanted(which: Sequence[str], first: int = 1, every: int = 1) -> list[tuple[str, Mutant]]:
    """
    The mistakes to try, without those that are known to change nothing.

    Parameters:
        which: modules, or single mistakes as `module:number`; nothing for all modules.
        first: the first to take of all, counted from 1.
        every: how far from one to the next.
    """
    found: list[tuple[str, Mutant]] = []
    known = _equivalent()
    for each in which or MODULES:
        module, _, number = each.partition(":")
        found += [
            (module, mutant)
            for mutant in mutants(_path(module).read_text())
            if number in ("", str(mutant.number))
            if (module, mutant.name, mutant.what) not in known
        ]
    return found[first - 1 :: every]


def scores(first: int = 1, every: int = 1) -> Iterator[str]:
    """Module by module: nothing, or that too few mistakes in it are noticed, and which are not."""
    traces = traced(FILES)
    for module in MODULES[first - 1 :: every]:
        found = list(outcomes(wanted([module]), traces, processes=1))
        alive = "; ".join(str(outcome) for outcome in found if outcome.survived)
        yield "" if score(found) >= TARGET else f"{module}: {score(found):.1%} noticed; {alive}"


def outcomes(
    which: Sequence[tuple[str, Mutant]],
    traces: Traces,
    *,
    files: Sequence[str] = FILES,
    processes: int = 2,
) -> Iterator[Outcome]:
    """
    Try mistakes, shared out among some processes.

    Parameters:
        which: as `wanted` gives them.
        traces: of the tests in these files, as `traced` gives them.
        files: the files of the tests.
        processes: how many.
    """
    forking = multiprocessing.get_context("fork")
    sources = {module: _path(module).read_text() for module in MODULES}
    told: Any = forking.SimpleQueue()
    workers = [
        forking.Process(target=_work, args=(which[place::processes], sources, traces, files, told))
        for place in range(processes)
    ]
    for worker in workers:
        worker.start()
    running = processes
    while running:
        outcome = told.get()
        if outcome is None:
            running -= 1
        else:
            yield outcome
    for worker in workers:
        worker.join()


def table(found: Mapping[str, Sequence[Outcome]]) -> str:
    """A line for each module, and one for all."""
    rows = [f"{'module':18}{'mutants':>8}{'noticed':>9}{'survived':>9}{'score':>8}"]
    everything = [outcome for outcomes in found.values() for outcome in outcomes]
    for name, outcomes in [*sorted(found.items()), ("all", everything)]:
        alive = sum(outcome.survived for outcome in outcomes)
        counts = f"{len(outcomes):8}{len(outcomes) - alive:9}{alive:9}"
        rows.append(f"{name:18}{counts}{score(outcomes):8.1%}")
    return "\n".join(rows)


def score(outcomes: Sequence[Outcome]) -> float:
    """The share of the mistakes that was noticed."""
    alive = sum(outcome.survived for outcome in outcomes)
    return 1 - alive / len(outcomes) if outcomes else 1.0


def _path(module: str) -> Path:
    return _SOURCE / f"{module.replace('.', '/')}.py"


def _equivalent() -> set[tuple[str, str, str]]:
    """Module, name and mistake of each line of the list; the line before says why."""
    if not _EQUIVALENT.exists():
        return set()
    lines = [line for line in _EQUIVALENT.read_text().splitlines() if line and line[0] != "#"]
    return {tuple(line.split(" | ", 2)) for line in lines}


def traced(files: Sequence[str]) -> Traces:
    """Run every test once as it is, in the conditions of a mistake."""
    paths = [_path(module).resolve() for module in MODULES]

    def trace() -> str:
        found: list[dict[str, Any]] = []

        def run(tests: trial.Tests) -> None:
            trial.give_rights_up()
            found.append(tests.traced(paths))

        trial.collected(files, run)
        return json.dumps(found[0])

    told = trial.apart(trace, 600)
    if not told.startswith("{"):
        raise RuntimeError(f"the tests as they are could not be run: {told}")
    return json.loads(told)


def _work(
    which: Sequence[tuple[str, Mutant]],
    sources: Mapping[str, str],
    traces: Traces,
    files: Sequence[str],
    told: Any,
) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    uses, mentions = _uses(sources), _mentions(files)
    inside: list[tuple[str, Mutant, list[str]]] = []
    for module, mutant in which:
        names = _tests(module, mutant, sources[module], traces, uses, mentions)
        if not names:
            told.put(_outcome(module, mutant, names, ""))
        elif mutant.is_inside:
            inside.append((module, mutant, names))
        else:
            told.put(_outside(module, mutant, names, sources[module], traces))

    def go_on(tests: trial.Tests) -> None:
        for module, mutant, names in inside:
            told.put(_inside(module, mutant, names, sources[module], traces, tests))

    if inside:
        trial.collected(files, go_on)
    told.put(None)


def _outside(module: str, mutant: Mutant, names: list[str], source: str, traces: Traces) -> Outcome:
    act = partial(trial.imported_with, f"holdfast.{module}", mutant.tree(source), names)
    return _outcome(module, mutant, names, trial.apart(act, _seconds(names, traces)))


def _inside(
    module: str,
    mutant: Mutant,
    names: list[str],
    source: str,
    traces: Traces,
    tests: trial.Tests,
) -> Outcome:
    imported = importlib.import_module(f"holdfast.{module}")

    def act() -> str:
        trial.put_in_place(imported, mutant.name, mutant.tree(source))
        trial.give_rights_up()
        return tests.run(names)

    return _outcome(module, mutant, names, trial.apart(act, _seconds(names, traces)))


def _outcome(module: str, mutant: Mutant, names: list[str], noticed: str) -> Outcome:
    return Outcome(
        module, mutant.number, mutant.line, mutant.name, mutant.what, noticed, len(names)
    )


def _seconds(names: Sequence[str], traces: Traces) -> float:
    return sum(traces[name][0] for name in names)


def _uses(sources: Mapping[str, str]) -> dict[str, set[tuple[str, int]]]:
    """By the name of a thing of a module, the lines that define or use it."""
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for module, source in sources.items():
        path = str(_path(module).resolve())
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    found[name].add((path, node.lineno))
                case ast.FunctionDef() | ast.ClassDef():
                    span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                    found[node.name] |= {(path, line) for line in span}
    return found


@functools.cache
def _made_of(source: str) -> dict[str, set[str]]:
    """By the name of a thing of a module, what of the module is made of it as it is imported."""
    found: dict[str, set[str]] = defaultdict(set)
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            made = {each.id for target in statement.targets for each in _names(target)}
            for part in _names(statement.value):
                found[part.id] |= made
    return found


def _names(node: ast.AST) -> list[ast.Name]:
    return [each for each in ast.walk(node) if isinstance(each, ast.Name)]


def _mentions(files: Sequence[str]) -> dict[str, set[str]]:
    """By the name of a thing, the tests that name it themselves."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in (file for file in files if not file.startswith("-")):
        tree = ast.parse(Path(file).read_text())
        made = {
            each.id: _named_in(statement.value)
            for statement in tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            for each in _names(target)
        }
        for test in ast.walk(tree):
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                named = _named_in(test)
                for name in named.union(*(made.get(name, set()) for name in named)):
                    found[name].add(f"{file}::{test.name}")
    return found


def _named_in(node: ast.AST) -> set[str]:
    """All names and attributes in a piece of code."""
    attributes = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return attributes.union(each.id for each in _names(node))


def _tests(
    module: str,
    mutant: Mutant,
    source: str,
    traces: Traces,
    uses: Mapping[str, set[tuple[str, int]]],
    mentions: Mapping[str, set[str]],
) -> list[str]:
    """The tests that run what a mistake is in: its own, then the quickest and narrowest."""
    path = str(_path(module).resolve())
    naming: set[str] = set()
    places: set[tuple[str, int]] = set()
    if mutant.is_inside:
        run = {line for _, lines in traces.values() for line in lines.get(path, ())}
        places = {(path, max((line for line in run if line <= mutant.line), default=0))}
    else:
        names_of, made = mutant.name.rpartition(".")[2].split(), _made_of(source)
        for name in names_of:  # which grows
            names_of += made.get(name, set()) - {*names_of}
            places |= uses.get(name, set())
            naming |= mentions.get(name, set())
    found = [
        (test.partition("[")[0] not in naming, took * (1 + len(lines.get(path, ()))), test)
        for test, (took, lines) in traces.items()
        if test.partition("[")[0] in naming
        or any(line in lines.get(where, ()) for where, line in places)
    ]
    names: list[str] = []
    left = _SECONDS
    in_order = [name for *_, name in sorted(found)]
    own = [name for name in in_order if f"/test_{module.rpartition('.')[2]}.py::" in name]
    for name in dict.fromkeys([*own, *_in_turn(in_order)]):
        if traces[name][0] < left or not names:
            names.append(name)
            left -= traces[name][0]
    return names


def _in_turn(names: Iterable[str]) -> list[str]:
    """The first test of each file, then the second of each: they see different things."""
    seen: Counter[str] = Counter()
    placed: list[tuple[int, str]] = []
    for name in names:
        file = name.partition("::")[0]
        placed.append((seen[file], name))
        seen[file] += 1
    return [name for _, name in sorted(placed, key=itemgetter(0))]

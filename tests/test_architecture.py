"""The floors of the house: imports go down, and the bare import is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "holdfast"
FLOORS = [
    "errors version",
    "record disk hashing parallel notices",
    "checkpoint",
    "layout",
    "manifest state",
    "retention writer backends",
    "staging catalog series",
    "publishing removal fetching preflight pending",
    "store",
    "saver preemption",
    "cli keras tensorflow testing",
]
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms.split()}
#: What a training script that only imports Holdfast must not pay for.
HEAVY = [
    *("click", "fsspec", "h5py", "keras", "numpy", "pytest", "tensorflow", "torch", "jax"),
    *("aiohttp", "boto3", "botocore", "gcsfs", "google", "paramiko", "requests", "s3fs"),
    *("asyncio", "email", "http", "multiprocessing", "socket", "ssl", "subprocess"),
    *("ctypes", "platform"),
]
MODULES = sorted(
    path.relative_to(SOURCE)
    for path in SOURCE.rglob("*.py")
    if path.relative_to(SOURCE) not in (Path("__init__.py"), Path("__main__.py"))
)


def room_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> set[str]:
    """The rooms that a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            if node.module == "holdfast":
                names.update(f"holdfast.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("holdfast.")}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module: Path) -> None:
    here = room_of(module)

    imported = imported_rooms(ast.parse((SOURCE / module).read_text())) - {here}

    above = {room for room in imported if HEIGHT[room] >= HEIGHT[here]}
    assert not above, f"{here} may not import {above}: move it down, or join both one floor up"


def test_an_import_upwards_is_seen() -> None:
    tree = ast.parse("def f():\n    from holdfast import store\n    import holdfast.saver\n")

    assert imported_rooms(tree) == {"store", "saver"}


def test_only_the_last_of_one_line_of_modules_imports_what_is_optional() -> None:
    allowed = {
        "click": ["cli"],
        "h5py": ["keras"],
        "keras": ["keras"],
        "numpy": ["keras"],
        "tensorflow": ["keras", "tensorflow"],
    }
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse((SOURCE / module).read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            found |= {(name.split(".")[0], room_of(module)) for name in names}

    strayed = {(name, room) for name, room in found if room not in allowed.get(name, [room])}

    assert not strayed


def test_nothing_is_copied_or_removed_by_a_client_that_goes_through_a_tree_by_itself() -> None:
    calls = [
        (module, node.lineno)
        for module in MODULES
        for node in ast.walk(ast.parse((SOURCE / module).read_text()))
        if isinstance(node, ast.Call)
        and any(keyword.arg == "recursive" for keyword in node.keywords)
    ]

    assert not calls


def test_the_bare_import_is_light() -> None:
    code = f"import sys, holdfast; print([name for name in {HEAVY} if name in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert printed.stdout.strip() == "[]", printed.stderr


def test_every_public_name_has_a_docstring_and_one_home() -> None:
    code = (
        "import holdfast, inspect\n"
        "names = {n: o for n, o in vars(holdfast).items() if inspect.isclass(o) or callable(o)}\n"
        "print([n for n, o in names.items() if not (o.__doc__ or '').strip()])"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert printed.stdout.strip() == "[]", printed.stderr

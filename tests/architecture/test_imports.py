"""Imports point downwards only (design section 3), read from every module's syntax tree."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [{"fascicle"}, {"experiments"}, {"agent", "gateway"}, {"nodes", "xen"}, {"transfer"}]
OURS = set().union(*LAYERS)
IMPURE = {"socket", "ssl", "trio", "asyncio", "time", "random", "select", "selectors", "threading", "subprocess"}
MODULES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the full names of the modules that the module at `path` imports, wherever in it they stand."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its direction"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def allowed(package: str) -> set[str]:
    level = next(index for index, layer in enumerate(LAYERS) if package in layer)
    return {package}.union(*LAYERS[level + 1 :])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_downwards_only(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert tops(path) & OURS - allowed(package) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=named)
def test_experiments_know_what_they_measure_only_from_outside(path: Path) -> None:
    """They start the commands, as they do with every other program; errors are the one thing that they share."""
    assert {name for name in imported(path) if name.partition(".")[0] in OURS - {"experiments"}} <= {
        "transfer.errors.FascicleError",
        "transfer.errors.SettingsError",
        "transfer.errors.StorageError",
    }


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_runtime_stays_where_it_belongs(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    foreign = {"asyncio", "uvicorn", "litestar", "sqlalchemy"} if package != "gateway" else {"trio"}
    assert tops(path) & foreign == set()


PROTOCOL = sorted((ROOT / "transfer" / "protocol").glob("*.py"))


@pytest.mark.parametrize("path", PROTOCOL, ids=named)
def test_the_protocol_needs_no_socket_clock_or_runtime(path: Path) -> None:
    ours = {name for name in imported(path) if name.startswith("transfer.")}
    assert {name for name in ours if not name.startswith(("transfer.protocol", "transfer.errors"))} == set()
    assert tops(path) - set(sys.stdlib_module_names) - {"msgspec", "transfer"} == set()
    assert tops(path) & IMPURE == set()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_libraries_do_not_print(path: Path) -> None:
    """Commands speak to people; everything else logs events."""
    if path.relative_to(ROOT).parts[0] in {"fascicle", "agent", "experiments"}:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"] == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_file_holds_one_idea(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module says its one idea first"
    assert len(text.splitlines()) <= 400

"""The house: imports go down only, every module stands alone, files and functions stay readable."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "client", "server", "simulations")
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 300, 40, 6

# Imports every module of ours as the first of its kind: ours are forgotten in between, third parties are kept.
IMPORT_ALONE = """
import importlib, json, sys
failed = {}
for name in json.loads(sys.argv[1]):
    for loaded in list(sys.modules):
        if loaded.split(".")[0] in ("common", "client", "server", "simulations", "fedembed"):
            del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""


def source_files() -> list[Path]:
    """Every source file of the project, tests aside."""
    return [ROOT / "fedembed.py", *(file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))]


def module_name(file: Path) -> str:
    """Dotted name of a source file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_module_can_be_imported_alone() -> None:
    names = [module_name(file) for file in source_files() if file.name != "__main__.py"]
    command = [sys.executable, "-c", IMPORT_ALONE, json.dumps(names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


def test_every_folder_with_source_is_a_package() -> None:
    """A folder without ``__init__.py`` is left out of the wheel by nobody's decision."""
    folders = {file.parent for file in source_files() if file.parent != ROOT}
    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def test_nothing_imports_the_root_face() -> None:
    """``fedembed.py`` stands above everything; import-linter, which sees packages only, checks the rest."""
    found = [
        str(file.relative_to(ROOT))
        for file in source_files()
        if file.name != "fedembed.py" and "fedembed" in imported_roots(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


def imported_roots(tree: ast.AST) -> set[str]:
    """First parts of all imported names."""
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            roots.add(node.module.split(".")[0])
    return roots


def test_no_pickle_anywhere() -> None:
    banned = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    found = {
        str(file.relative_to(ROOT)): roots
        for file in source_files()
        if (roots := imported_roots(ast.parse(file.read_text(encoding="utf-8"))) & banned)
    }
    assert found == {}


def test_no_global_random_generator() -> None:
    """Seeds are passed; numpy's and torch's global generators, and ``random``'s, are never drawn from."""
    drawing = {
        "seed",
        "rand",
        "randn",
        "randint",
        "random",
        "normal",
        "shuffle",
        "permutation",
        "choice",
        "manual_seed",
    }
    found = []
    for file in source_files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in drawing:
                owner = ast.unparse(node.value)
                if owner in {"np.random", "numpy.random", "random"} or (
                    owner == "torch" and node.attr == "manual_seed"
                ):
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {owner}.{node.attr}")
    assert found == []


def test_files_are_short() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in source_files()
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert long == {}


def test_functions_are_short_and_take_few_parameters() -> None:
    """A comment ``# exception: reason`` in or above the signature says why one is bigger."""
    found = []
    for file in source_files():
        text = file.read_text(encoding="utf-8")
        for function in functions(ast.parse(text)):
            signature = text.splitlines()[function.lineno - 2 : function.body[0].lineno - 1]
            if (problem := oversize(function)) and not re.search(r"# exception: \w", "\n".join(signature)):
                found.append(f"{file.relative_to(ROOT)}:{function.lineno} {function.name}: {problem}")
    assert found == []


def oversize(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """What makes a function too big, or an empty string. A docstring does not count."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    lines = (function.end_lineno or 0) - first.lineno + 1
    given = function.args
    own = [a for a in [*given.posonlyargs, *given.args] if a.arg not in ("self", "cls")]
    if lines > MAX_FUNCTION_LINES:
        return f"{lines} lines"
    if len(own) + len(given.kwonlyargs) > MAX_PARAMETERS:
        return f"{len(own) + len(given.kwonlyargs)} parameters"
    return ""


def test_every_public_function_says_what_it_does() -> None:
    found = []
    for file in source_files():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if file == ROOT / "common" / "errors.py":
            continue  # the tree at its top says what each class means; tests/simulations/test_cli.py compares the two
        if tree.body and ast.get_docstring(tree) is None:
            found.append(f"{file.relative_to(ROOT)}: module")
        for node in [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]:
            if not node.name.startswith("_") and ast.get_docstring(node) is None:
                found.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert found == []


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("def f(a, b, *, c, d, e, f): pass", False),
        ("def f(a, b, *, c, d, e, f, g): pass", True),
        ("def f(self, a, b, *, c, d, e, f): pass", False),
        ("def f():\n" + "    x = 1\n" * 40, False),
        ("def f():\n" + "    x = 1\n" * 41, True),
        ('def f():\n    """Text.' + "\n" * 60 + 'End."""\n    return 1', False),
    ],
)
def test_the_size_check_can_fail(source: str, caught: bool) -> None:
    assert bool(oversize(next(functions(ast.parse(source))))) == caught


def test_the_face_offers_what_it_names() -> None:
    import fedembed

    for name in fedembed.__all__:
        assert getattr(fedembed, name) is not None, name
    assert set(fedembed.__all__) <= set(dir(fedembed))
    with pytest.raises(AttributeError, match="simulat"):
        fedembed.simulat  # noqa: B018


def test_importing_the_face_is_cheap() -> None:
    program = "import sys, fedembed; print([m for m in ('torch', 'flwr', 'opacus', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr

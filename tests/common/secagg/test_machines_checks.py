"""Every attack on an honest client is refused by name; every check that is left out is missed by one of them."""

from __future__ import annotations

import ast
import inspect
import types

import pytest

from common.evaluation.conformance import Bench, failures
from common.secagg import checks, client
from simulations.mutants import Mutant
from simulations.mutants.secagg import MUTANTS
from simulations.protocol_checks import PROTOCOL


@pytest.mark.parametrize("check", PROTOCOL, ids=lambda check: check.name)
def test_the_attack_is_refused(check) -> None:  # type: ignore[no-untyped-def]
    findings = check.run(Bench(), 0)
    assert findings and failures(findings) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_client_without_the_check_is_caught(mutant: Mutant) -> None:
    assert mutant.findings()


def test_every_check_of_the_client_has_a_mutant() -> None:
    """And every one is called; what only computes is not a check."""
    functions = {
        name
        for name, value in vars(checks).items()
        if inspect.isfunction(value) and value.__module__ == checks.__name__
    }
    replaced = {m.replacing.name for m in MUTANTS if m.replacing is not None and m.replacing.owner is checks}
    assert replaced == functions
    called = [
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(client)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "checks"
    ]
    assert set(called) == functions


def call_sites() -> list[tuple[int, str]]:
    """Line and name of every check that the client's functions make for its refusal alone."""
    tree = ast.parse(inspect.getsource(client))
    return [
        (node.lineno, node.value.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and ast.unparse(node.value.func.value) == "checks"
    ]


@pytest.mark.parametrize(("line", "name"), call_sites())
def test_no_call_of_a_check_can_be_left_out(line: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client without this one line, under the attacks that the check is there for."""
    lines = inspect.getsource(client).splitlines()
    text = lines[line - 1]
    lines[line - 1] = text[: len(text) - len(text.lstrip())] + "pass"
    without = types.ModuleType(client.__name__)
    exec(compile("\n".join(lines), "client without a check", "exec"), vars(without))
    for function in ("advertise", "share", "mask", "confirm", "reveal"):
        monkeypatch.setattr(client, function, getattr(without, function))
    killers = {m.killed_by for m in MUTANTS if m.replacing is not None and m.replacing.name == name}
    assert any(failures(check.run(Bench(), 0)) for check in PROTOCOL if check.name in killers)

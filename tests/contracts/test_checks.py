"""Every registered audit check has an id of its own and a fault that proves it catches something."""

from types import ModuleType

import pytest
from faults import FAULTS

from clsp.audit.finding import BADGE, BLOCKING
from clsp.audit.level import LEVELS, level_of
from clsp.runtime import registry

PACKAGE = "clsp.audit.checks"
NAMES = registry.names(PACKAGE)


@pytest.fixture(params=NAMES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return registry.load(PACKAGE, request.param, "check")


def test_interface(module: ModuleType) -> None:
    name = module.__name__.rsplit(".", 1)[1]
    assert name.startswith(f"{module.ID.lower()}_")
    assert module.SEVERITY in (BLOCKING, BADGE)
    assert level_of(module) in LEVELS
    assert module.__doc__ and callable(module.check)


def test_some_fault_sets_it_off(module: ModuleType) -> None:
    """tests/audit/test_faults.py injects them all and expects exactly these checks."""
    assert [n for n, fault in FAULTS.items() if module.ID in fault.checks | fault.notes]


def test_ids_are_unique() -> None:
    ids = [registry.load(PACKAGE, name, "check").ID for name in NAMES]
    assert len(set(ids)) == len(ids)


def test_faults_name_known_checks() -> None:
    ids = {registry.load(PACKAGE, name, "check").ID for name in NAMES}
    assert {check for fault in FAULTS.values() for check in fault.checks | fault.notes} <= ids

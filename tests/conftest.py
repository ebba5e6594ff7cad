"""What all tests share: the way paddle is imported, what no test may leave changed, and the reference outputs."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from utils.cli import prepare_paddle

prepare_paddle()  # here, because it has to come before any other import of paddle

from tests import own_process, surroundings  # noqa: E402

surroundings.heed_signals()
if own_process.INSIDE:
    del surroundings.SURROUNDINGS["OpenMP's threads"], surroundings.SURROUNDINGS["MKL's threads"]
else:
    surroundings.refuse_predictors()

GOLDEN = Path(__file__).resolve().parents[1].parent / "shared" / "golden"
"""Arrays recorded by running the original programs. They are no part of the repository."""
_before = pytest.StashKey[dict]()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded arrays; the test is skipped where it is absent."""
    if not GOLDEN.is_dir():
        pytest.skip(f"the recorded arrays of the original programs are not at {GOLDEN}")
    return GOLDEN


def pytest_configure(config) -> None:
    config.pluginmanager.register(own_process.Plugin(config))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items) -> None:
    """Adds time limits. TEST_ORDER=NUMBER shuffles the files and the tests in each, reversed reverses all."""
    for item in items:
        if item.get_closest_marker("own_process") and not own_process.INSIDE:
            item.add_marker(pytest.mark.timeout(own_process.LIMIT + 60))  # the first waits for all of its file
    order = os.environ.get("TEST_ORDER", "")
    if order == "reversed":
        items.reverse()
    elif order:
        chance = random.Random(int(order))
        rank = {path: chance.random() for path in sorted({item.path for item in items})}
        items.sort(key=lambda item: (rank[item.path], chance.random()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[_before] = surroundings.read()
    surroundings.seed()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    """A fixture that outlives its test finds the same random numbers whichever test asks first; so do those tests."""
    if fixturedef.scope == "function":
        return (yield)
    surroundings.seed()
    try:
        return (yield)
    finally:
        surroundings.seed()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    try:
        return (yield)
    finally:
        changed = surroundings.put_back(item.stash[_before])
        if changed:
            pytest.fail("this test left its process changed; put back:\n" + "\n".join(changed), pytrace=False)

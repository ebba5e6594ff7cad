"""Places for runs, and the table of faults: with FAULTS_TABLE=PATH in the environment a session writes it there."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.register_assert_rewrite("tests.faults.harness")
from tests.faults.harness import Place  # noqa: E402

HEAD = """\
# Faults and what happens

Every line is a test in `tests/faults/`, driven from the outside: real processes, signals and files. This table is
written by the run itself: `make test-faults`.
"""
LIMIT = 1800  # seconds for one of the long tests; 100 kills took 270
_outcomes = pytest.StashKey[list]()


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.timeout(LIMIT))


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Seven small smooth photographs."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(7):
        coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (48 + number, 40)))
    return folder


@pytest.fixture
def place(tmp_path, photos) -> Place:
    return Place(tmp_path, photos)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, photos) -> Place:
    """The run that nothing happened to: 40 iterations."""
    place = Place(tmp_path_factory.mktemp("reference"), photos)
    place.run()
    return place


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    marker = item.get_closest_marker("fault")
    if marker and (report.when == "call" or report.skipped):
        shown = f" ({item.callspec.id})" if hasattr(item, "callspec") else ""
        outcome = {"passed": "as expected", "failed": "**FAILED**"}.get(report.outcome, "skipped")
        if report.skipped:
            outcome += f": {report.longrepr[2].removeprefix('Skipped: ')}"
        row = (marker.args[0] + shown, marker.args[1], outcome, report.duration)
        item.config.stash.setdefault(_outcomes, []).append(row)


def pytest_sessionfinish(session):
    path, rows = os.environ.get("FAULTS_TABLE"), session.config.stash.get(_outcomes, [])
    if not path or not rows:
        return
    import paddle

    good = sum(outcome == "as expected" for _, _, outcome, _ in rows)
    lines = [
        HEAD,
        f"{len(rows)} faults, {good} as expected; PaddlePaddle {paddle.__version__}, NumPy {np.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}.\n",
        "| fault | expected | outcome | seconds |",
        "|---|---|---|---|",
        *(f"| {name} | {expected} | {outcome} | {seconds:.1f} |" for name, expected, outcome, seconds in rows),
    ]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

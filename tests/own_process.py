"""Tests marked `own_process` run in a pytest of their own, one for each file; their reports come back from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

REPORTS = "PYTEST_REPORTS_OF_OWN_PROCESS"  # in the child's environment: the file for its reports
LIMIT = 900  # seconds for a whole file
INSIDE = REPORTS in os.environ


class Plugin:
    def __init__(self, config) -> None:
        self.config, self.reports = config, {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        if INSIDE or item.get_closest_marker("own_process") is None:
            return None
        if item.nodeid not in self.reports:
            self.reports.update(run_file(item))
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for data in self.reports[item.nodeid]:
            report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
            if report.skipped and isinstance(report.longrepr, list):  # JSON has no tuples
                report.longrepr = tuple(report.longrepr)
            item.ihook.pytest_runtest_logreport(report=report)
        item.session._setupstate.teardown_exact(nextitem)  # of the test before, which counted on this one
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_runtest_logreport(self, report) -> None:
        if INSIDE:
            data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
            with open(os.environ[REPORTS], "a") as file:
                file.write(json.dumps(data) + "\n")


def run_file(item) -> dict[str, list[dict]]:
    """Runs the marked tests of this test's file that were asked for; the reports of each by its name."""
    wanted = [i.nodeid for i in item.session.items if i.path == item.path and i.get_closest_marker("own_process")]
    path = item.config._tmp_path_factory.mktemp("own_process") / "reports"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "", *wanted]
    try:
        child = subprocess.run(
            command, cwd=item.config.rootpath, env={**os.environ, REPORTS: str(path)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT,
        )  # fmt: skip
        output, code = child.stdout, f"exit code {child.returncode}"
    except subprocess.TimeoutExpired as error:
        output, code = error.stdout or b"", f"no end after {LIMIT} s"
    reports: dict[str, list[dict]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        data = json.loads(line)
        reports.setdefault(data["nodeid"], []).append(data)
    for nodeid in wanted:
        if not any(data["when"] == "teardown" for data in reports.get(nodeid, [])):
            text = f"the process of its own ended without a report: {code}\n{output.decode(errors='replace')[-5000:]}"
            report = pytest.TestReport(nodeid, item.location, {}, "failed", text, "call")
            data = item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
            reports.setdefault(nodeid, []).append(data)
    return reports

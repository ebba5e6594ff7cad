from __future__ import annotations

import os
from pathlib import Path

from utils.run.records import QuietLog, report_not_finite


def test_report(tmp_path):
    path = str(tmp_path / "not_finite_00000007.txt")
    photographs = ["a.png", "/b\udcff.png"]
    found = report_not_finite(path, "iteration 7: g nan", {"l1": 0.5, "g": 2.0}, 41, photographs, "c.npz")
    assert found == (
        "iteration 7: g nan; the iteration before: l1 0.5, g 2; the batch's photographs are listed in "
        f"{path}; the last checkpoint is c.npz"
    )
    lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    assert lines == ["# iteration 7: g nan", "# the iteration before: l1 0.5, g 2",
                     "# photographs of batch 41, in its order", os.path.abspath("a.png"), "/b\udcff.png"]
    found = report_not_finite(path, "iteration 1: g nan", {}, 0, [], None)
    assert "; the iteration before: none; " in found and found.endswith("; there is no checkpoint yet")


def test_quiet_log(capsys):
    log = QuietLog()
    with log:
        log.write("Iter: [1/2] l1: 0.5")
        log.write("a bad file")
    assert capsys.readouterr() == ("", "a bad file\n")

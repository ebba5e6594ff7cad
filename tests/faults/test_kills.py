"""SIGKILL again and again, at random moments, in a training that saves after every iteration."""

from __future__ import annotations

import os
import random
import time

from tests.faults.harness import Place, assert_same_run, fault, wait_until

KILLS = int(os.environ.get("KILLS", "100"))
OPTIONS = ["snapshot_save_iter=1", "keep_checkpoints=2"]


@fault(f"{KILLS} times SIGKILL at random moments, every third during a save", "every resume succeeds; ends bit-equal")
def test_kills(tmp_path, photos):
    (tmp_path / "killed").mkdir()
    (tmp_path / "straight").mkdir()
    killed, straight = Place(tmp_path / "killed", photos), Place(tmp_path / "straight", photos)
    niter = f"niter={8 * KILLS}"
    chance = random.Random(2)
    kills = started_saves = 0
    while kills < KILLS:
        resume = ["--resume", "latest"] if killed.checkpoints() else []
        before = max(killed.checkpoints(), default=0)
        process = killed.start(niter, *OPTIONS, f"num_workers={chance.choice([0, 0, 0, 1, 2])}", *resume)
        if chance.random() < 0.1:  # before it has come to anything
            time.sleep(chance.random() * 2)
        else:
            iteration = before + chance.randint(1, 6)
            wait_until(lambda end=iteration: max(killed.checkpoints(), default=0) >= end, process)
            if kills % 3 == 0:
                spin_until_saving(killed)
            else:
                time.sleep(chance.random() / 5)
        process.kill()
        killed.finish(process, code=None)
        kills += 1
        started_saves += bool(killed.leftovers()) if killed.run_folder.exists() else 0
    reached = max(killed.checkpoints())
    assert reached < 8 * KILLS, "it must not have been over before the last kill"
    end = reached + 3
    print(f"{kills} kills, {started_saves} of them during a save, up to iteration {reached}")
    assert started_saves >= KILLS // 10
    killed.run(f"niter={end}", *OPTIONS, "--resume", "latest")
    straight.run(f"niter={end}", *OPTIONS)
    killed.log.write_text(killed.log.read_text().replace(f"/{8 * KILLS}]", f"/{end}]"))
    assert_same_run(killed, straight)


def spin_until_saving(place: Place) -> None:
    deadline = time.monotonic() + 1
    while not place.leftovers() and time.monotonic() < deadline:
        pass

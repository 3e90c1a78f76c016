"""A driver that is killed with SIGKILL at one exact moment: ``python doomed_driver.py SPACE NAME STORAGE MOMENT``."""

import os
import signal
import sys
from pathlib import Path

from optuna.storages.journal import JournalFileBackend

from lrsearch import search
from lrsearch.sweep.study import SweepStudy


def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


class DieAt:
    """An observer that dies at the nth call of one of its methods."""

    def __init__(self, method, nth=1):
        self.method, self.left = method, nth

    def __getattr__(self, name):
        def watch(*args):
            if name == self.method:
                self.left -= 1
                if self.left == 0:
                    die()

        return watch


class DieInEpoch:
    """An observer that dies when a trial reports its second epoch of retraining."""

    def trial_reported(self, number, report):
        if report.stage == "retrain" and report.done == 2:
            die()

    def __getattr__(self, name):
        return lambda *args: None


def before_the_study_is_told():
    SweepStudy.tell = die
    return []


def while_the_front_is_written():
    replace = Path.replace

    def die_at_front(self, target):
        if Path(target).name == "front.json" and Path(target).exists():
            die()
        return replace(self, target)

    Path.replace = die_at_front
    return []


def in_the_middle_of_a_journal_line():
    append, left = JournalFileBackend.append_logs, [12]

    def tear(self, logs):
        left[0] -= 1
        if left[0] > 0:
            return append(self, logs)
        with Path(self._file_path).open("ab") as journal:
            journal.write(b'{"op_code": 4, "worker')
        die()

    JournalFileBackend.append_logs = tear
    return []


MOMENTS = {
    "dense training": lambda: [DieAt("dense_reported", 2)],
    "trial training": lambda: [DieInEpoch()],
    "after a trial": lambda: [DieAt("trial_finished", 2)],
    "before the study is told": before_the_study_is_told,
    "while the front is written": while_the_front_is_written,
    "in the middle of a journal line": in_the_middle_of_a_journal_line,
}

if __name__ == "__main__":
    space, name, storage, moment = sys.argv[1:]
    search(space, name, storage=storage, observers=MOMENTS[moment]())

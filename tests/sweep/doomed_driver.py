"""A driver that is killed with SIGKILL at one exact moment.

``doomed_driver.py SPACE NAME STORAGE MOMENT EPOCHS`` runs a real sweep, ``doomed_driver.py FOLDER MOMENT``
a simulated one, without Ray.
"""

import os
import signal
import sys
from pathlib import Path

from optuna.storages.journal import JournalFileBackend

from lrsearch.sweep import session
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
    """An observer that dies when a trial reports a certain epoch of retraining."""

    def __init__(self, epoch):
        self.epoch = epoch

    def trial_reported(self, number, report):
        if report.stage == "retrain" and report.done == self.epoch:
            die()

    def __getattr__(self, name):
        return lambda *args: None


def before_the_study_is_told():
    SweepStudy.tell = die


def after_a_verdict_is_remembered():
    remember = SweepStudy.remember_rung

    def die_after(self, record):
        remember(self, record)
        if not record.verdict.goes_on:
            die()

    SweepStudy.remember_rung = die_after


def while_the_front_is_written():
    session.FRONT_PACE = 0  # so that it is written more than once, however quick the machine
    replace = Path.replace

    def die_at_front(self, target):
        if Path(target).name == "front.json" and Path(target).exists():
            die()
        return replace(self, target)

    Path.replace = die_at_front


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


MOMENTS = {
    "dense training": lambda: DieAt("dense_reported", 2),
    "trial training": lambda: DieInEpoch(3),
    "after some trials": lambda: DieAt("trial_finished", 5),
    "training taken further": lambda: DieInEpoch(5),
}
WRITES = {
    "before the study is told": before_the_study_is_told,
    "after a verdict is remembered": after_a_verdict_is_remembered,
    "while the front is written": while_the_front_is_written,
    "in the middle of a journal line": in_the_middle_of_a_journal_line,
}

if __name__ == "__main__":
    if len(sys.argv) == 3:
        folder, moment = sys.argv[1:]
        from simulator import grid_space, open_session, run  # beside this file

        WRITES[moment]()
        run(open_session(grid_space(epochs=3), Path(folder)))
    else:
        from lrsearch import search

        space, name, storage, moment, epochs = sys.argv[1:]
        search(space, name, storage=storage, observers=[MOMENTS[moment]()], settings={"retrain.epochs": epochs})

"""The sweep: Optuna chooses, Ray Tune runs, the study and the trials' folders remember."""

import os

WORKER_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a space file mean the driver's folder
}
_SETTINGS = WORKER_SETTINGS | {
    "RAY_AUTH_MODE": "token",  # whoever reaches a cluster without it runs code there
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # workers start side by side; the searcher says how many there may be
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)  # Ray reads them when it is imported; the user's own win

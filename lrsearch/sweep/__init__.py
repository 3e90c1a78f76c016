"""The sweep: Optuna chooses, Ray Tune runs, the study and the trials' folders remember."""

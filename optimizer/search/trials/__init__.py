"""Trials: the ledger of a study, its records in Optuna's storage, repair, and forks."""

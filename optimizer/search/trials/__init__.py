"""Trials: the ledger of a study, what Optuna is told of it, and how it is repaired and forked."""

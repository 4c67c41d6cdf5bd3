"""User interfaces in the browser, on this machine only."""

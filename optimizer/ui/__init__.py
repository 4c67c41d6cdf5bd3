"""Browser user interfaces, served on the local machine only."""

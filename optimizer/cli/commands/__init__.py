"""Commands of ``optimize``, one in each file: each parses its options, calls a job and prints the result."""

"""Jobs: one merge, one extraction, one task on a saved study, from request to output files; independent of terminal and web interfaces."""

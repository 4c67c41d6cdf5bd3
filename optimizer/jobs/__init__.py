"""Jobs: one merge, one preview or one validation, from request to output files; independent of terminal and web interfaces."""

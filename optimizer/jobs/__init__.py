"""Jobs: one merge, one preview, one validation, from request to files, with progress and without a word of terminal or page."""

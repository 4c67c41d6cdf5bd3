"""Results: the summary of a study and the export of its winner."""

"""Workers: coordination of several processes, on one or more machines, that share a study without losing or repeating trials."""

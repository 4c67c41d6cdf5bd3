"""Workers: how several processes, on one machine or many, share a study without losing or repeating a trial."""

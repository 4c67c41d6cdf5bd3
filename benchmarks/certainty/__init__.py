"""How often the verdicts and intervals of a study are right."""

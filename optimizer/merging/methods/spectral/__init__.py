"""Methods that work on singular vectors and values of the sources' ΔW."""

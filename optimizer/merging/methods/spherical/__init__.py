"""Methods that interpolate the directions of the sources' ΔW on a sphere."""

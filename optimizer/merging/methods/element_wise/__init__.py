"""Methods that work on the entries of each source's dense ΔW: masks, sign election, consensus."""

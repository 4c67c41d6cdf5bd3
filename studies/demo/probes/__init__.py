"""The probes: how much of each source's trait a picture shows."""

"""How well the product's scores agree with the probes."""

"""Tables that commands print for people, and the same facts for machines."""

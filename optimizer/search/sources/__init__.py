"""Sources: LoRAs or full models as a search sees them, with role, trigger and what merges them."""

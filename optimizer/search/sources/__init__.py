"""Sources: LoRAs or full models with role, trigger and mixer, as the search uses them."""

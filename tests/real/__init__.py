"""Against registries that others have written."""

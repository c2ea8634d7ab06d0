"""Tests against a registry that you name, see "Against a registry of your own" in CONTRIBUTING.md."""

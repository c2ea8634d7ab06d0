"""Tests against a registry that you name, see "Tests" in CONTRIBUTING.md."""

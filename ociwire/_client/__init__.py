"""The client and what it is built from, one module per subject of the OCI distribution specification."""

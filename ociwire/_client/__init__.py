"""The client, with one module for each subject of the OCI distribution specification."""

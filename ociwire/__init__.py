"""An OCI registry client whose wire is a chain of small transports."""

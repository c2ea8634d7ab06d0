"""Values that the OCI specifications define: digests, descriptors, references, scopes. No I/O."""

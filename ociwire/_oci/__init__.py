"""Values defined by the OCI specifications: digests, descriptors, manifests, references and scopes. No I/O."""

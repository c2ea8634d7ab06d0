"""HTTP messages, headers, bodies and URLs, the origin policy, and redaction of secrets. No I/O."""

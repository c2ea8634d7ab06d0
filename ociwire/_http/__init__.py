"""HTTP values and rules: messages, headers, bodies, URLs, the origin policy, redaction. No I/O."""

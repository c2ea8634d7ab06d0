"""Behaviour of deployed registries, token servers, proxies and machines: one module for each kind of deviation."""

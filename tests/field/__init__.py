"""How deployed registries, token servers, proxies and machines behave: one module for each kind of deviation."""

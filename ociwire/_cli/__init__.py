"""The command line, `ociwire`."""

"""The command line interface, `ociwire`."""

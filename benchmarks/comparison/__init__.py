"""Comparison of the features of ociwire, oras-py and dxf, determined by experiments."""

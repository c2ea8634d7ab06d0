"""What ociwire, oras-py and dxf do and do not do, found out by having them do it."""

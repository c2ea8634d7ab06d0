"""What hypothesis finds: properties, and machines that do anything in any order."""

"""What ociwire costs, as ratios in one run: ``python -m benchmarks``."""

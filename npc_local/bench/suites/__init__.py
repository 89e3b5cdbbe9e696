"""The benchmarks: their records, their judges and their scores."""

"""What benchmarks share: runs, arms, intervals."""

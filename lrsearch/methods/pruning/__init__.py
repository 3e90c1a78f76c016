"""What methods share that remove channels instead of factorizing layers."""

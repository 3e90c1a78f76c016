"""What methods share that choose a factorization for each layer once, from a table, and then apply it."""

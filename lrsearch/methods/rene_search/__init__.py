"""The rank search of RENE: grids that narrow, factorizations that hold all candidates, and the training of both."""

"""The version of this package, named in every result."""

__version__ = "0.1.0"

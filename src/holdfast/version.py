"""The version of this package, noted in the manifests that it writes."""

__version__ = "0.1.0"

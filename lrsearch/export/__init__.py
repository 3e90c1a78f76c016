"""Networks in forms that load without lrsearch."""

from lrsearch.export.formats import FORMATS, ExportFormat, export_network

__all__ = ["FORMATS", "ExportFormat", "export_network"]

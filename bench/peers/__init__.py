"""Servers that the product is measured with, or compared with."""

"""Servers that the product is measured with, or against."""

"""Finds and books scheduled flights."""

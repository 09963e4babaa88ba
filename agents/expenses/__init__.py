"""Validates expense claims against the policy."""

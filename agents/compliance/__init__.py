"""Reviews spending: approves it, rejects it, or calls for a person."""

"""Plans a trip and delegates its parts to the specialists."""

"""The tour: `make tour` shows the five proofs that a buyer asks for, on real processes, and stops everything."""

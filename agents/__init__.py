"""The travel and expense desk: one folder per agent, and the words they share (days, money)."""

"""The inventory of the estate: which agents and tool servers there are, each verified before it is listed."""

"""The vendor register, an MCP tool server."""

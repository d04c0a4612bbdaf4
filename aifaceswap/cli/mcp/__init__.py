"""The command `mcp`: swaps for AI agents, by the Model Context Protocol."""

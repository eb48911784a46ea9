"""An MCP server that offers a brand's declared operations as tools. It holds a bot key, and never a token."""

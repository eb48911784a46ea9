"""Other servers: a brand that the product calls, and servers to compare with."""

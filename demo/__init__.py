"""The demonstration: a sample brand, a sample chat with a bot, and a journey played between them."""

"""The demo: a sample brand, a sample chat with a bot, and a scripted journey through both."""

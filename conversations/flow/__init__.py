"""The order of events in the life of a challenge: the only code that changes conversations, challenges and tokens."""

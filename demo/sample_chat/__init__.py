"""A chat page with a scripted bot. It uses only the product's JSON API, with a bot key."""

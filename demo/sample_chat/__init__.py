"""A chat page with a scripted bot. It uses the product only through its JSON API, with a bot key."""

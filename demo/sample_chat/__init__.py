"""A chat page and its scripted bot. It knows the product by its JSON API and a bot key, and by nothing else."""

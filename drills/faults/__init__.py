"""What the drills do to the running product: one module for each part that fails."""

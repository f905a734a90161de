"""The pictures and texts that tasks make, and pictures of what an image classifier has learned."""

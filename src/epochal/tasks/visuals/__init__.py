"""The pictures and texts that tasks make, and pictures of how a network sees an image."""

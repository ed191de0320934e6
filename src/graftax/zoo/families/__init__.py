"""One file a family of published models."""

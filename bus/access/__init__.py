"""What whoever reads a venue needs of its network: who is where, what is published, and what one has missed."""

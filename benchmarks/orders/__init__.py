"""What an order is worth, and how well it is learned."""

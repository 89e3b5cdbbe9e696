"""What ranking costs, beside the way of the published code."""

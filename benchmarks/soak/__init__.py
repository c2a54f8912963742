"""A node under load for long, among peers of three stacks that come, go and are killed: what it holds over time."""

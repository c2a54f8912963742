"""What is counted in virtual time: waits for others, bytes, and choices, whatever the machine does meanwhile."""

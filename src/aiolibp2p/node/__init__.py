"""What a program runs: where blocks go that nobody keeps."""

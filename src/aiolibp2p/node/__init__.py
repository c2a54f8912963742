"""What a program runs: the directory of a node, and a store for what nobody keeps."""

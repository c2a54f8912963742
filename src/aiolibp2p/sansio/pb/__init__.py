"""Generated protobuf modules of the Noise payload and of identify."""

"""Generated protobuf modules of keys, envelopes and peer records."""

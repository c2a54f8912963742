"""Who a peer is and where it is: keys, peer IDs, multiaddrs, signed records. Values only, no I/O."""

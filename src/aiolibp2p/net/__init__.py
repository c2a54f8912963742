"""The asyncio shell: sockets, connections and streams over the state machines of `sansio`."""

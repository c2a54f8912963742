"""State machines without I/O: bytes and a clock reading in, bytes and readiness out.

Three shapes:

Handshake (multistream, Noise XX): `receive_bytes(data) -> Result | None` (None: needs more; raises RemoteProtocolError
or NegotiationError), `bytes_to_send() -> bytes`, `unread`, the bytes that came after its end.
Secure channel (Noise records): `encrypt(parts)`, `decrypt(data)`, both batched; its `failure` is looked at after every
call.
Session (Yamux): `receive_bytes(data, now)`, `receive_eof()`, `handle_timeout(now)`; commands; `bytes_to_send()`,
`next_timeout()`.

The contract of all of them:

1. After every mutation, drain the output and read `next_timeout` again before waiting.
2. A session never raises for what a peer did: it ends, and its `terminated` says why; the goodbye is in the output.
3. No clock and no randomness inside: `now` and Entropy are arguments, and `now` never goes back.
4. How bytes were cut into chunks changes nothing that the application sees.
5. Memory held for a peer is bounded by Limits, and each bound is tested at its edge.
6. An impossible state is an `assert` with a comment that says why; bad input is an error.
"""

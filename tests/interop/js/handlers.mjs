// The protocols that a js-libp2p listener (and a dialler) answers.
import { createHash } from 'node:crypto'
import {
  AFTER_EOF, AWAIT_RESET, ECHO, HALF_CLOSE, PERF, PING, PUSH, PUSHED, REPORT, RESET, SINK, STALL, STOCK_ECHO,
  collect, handlerLimits, openStreams, pause, readAll, readExactly, send, sendBytes, u64
} from './common.mjs'

const ZEROS = new Uint8Array(65536)

export const digest = data => createHash('sha256').update(data).digest('hex')

/** Register every handler; what they note of a peer is told to that peer by REPORT. */
export async function handleAll (node, { stock = false, log = false } = {}) {
  const limits = handlerLimits(stock)
  const seen = new Map()
  const active = new Map()
  const note = (connection, facts) => {
    const key = connection.remotePeer.toString()
    seen.set(key, { ...seen.get(key), ...facts })
  }
  const handle = (protocol, respond) => node.handle(protocol, async (stream, connection) => {
    const key = connection.remotePeer.toString()
    if (protocol !== REPORT) active.set(key, (active.get(key) ?? 0) + 1)
    try {
      await respond(stream, connection)
    } catch (err) {
      if (log) console.error('handler', protocol, err)
      stream.abort(err)
    } finally {
      if (protocol !== REPORT) active.set(key, active.get(key) - 1)
    }
  }, limits)

  await handle(ECHO, echo)
  await handle(STOCK_ECHO, stockEcho)
  await handle(SINK, sink)
  await handle(PERF, perf)
  await handle(AFTER_EOF, async stream => {
    const data = await collect(stream)
    await sendBytes(stream, data, data.byteLength)
    await stream.close()
  })
  await handle(HALF_CLOSE, async (stream, connection) => {
    await send(stream, Buffer.from('done'))
    await stream.close()
    const data = await collect(stream)
    note(connection, { halfCloseBytes: data.byteLength, halfCloseSha256: digest(data) })
  })
  await handle(RESET, async stream => {
    await readExactly(readAll(stream), 4)
    stream.abort(new Error('asked to reset'))
  })
  await handle(AWAIT_RESET, async (stream, connection) => {
    const incoming = readAll(stream)
    await send(stream, await readExactly(incoming, 1))
    try {
      const { done } = await incoming.next()
      note(connection, { reset: done ? 'end of stream' : 'data' })
      await stream.close()
    } catch (err) {
      note(connection, { reset: err.name })
    }
  })
  await node.handle(STALL, stream => { stream.pause() }, limits)
  await handle(PUSH, async stream => {
    if (!node.getProtocols().includes(PUSHED)) await handle(PUSHED, echo)
    await stream.close()
  })
  await handle(REPORT, async (stream, connection) => {
    await collect(stream)
    const busy = () => (active.get(connection.remotePeer.toString()) ?? 0) > 0
    const facts = await report(node, stream, connection, busy)
    await send(stream, Buffer.from(JSON.stringify({ ...facts, seen: seen.get(connection.remotePeer.toString()) ?? {} })))
    await stream.close()
  })
}

/** Replace the handlers of echo, sink, perf and ping by one that stops reading after so many bytes. */
export async function stallAll (node, stopAfter) {
  for (const protocol of [ECHO, SINK, PERF, PING]) {
    await node.unhandle(protocol)
    await node.handle(protocol, async stream => {
      let left = stopAfter
      if (left > 0) {
        for await (const part of readAll(stream)) {
          left -= part.byteLength
          if (left <= 0) break
        }
      }
      stream.pause()
    }, handlerLimits(false))
  }
}

async function echo (stream) {
  for await (const part of readAll(stream)) await send(stream, part)
  await stream.close()
}

async function stockEcho (stream) {
  for await (const part of stream) {
    if (!stream.send(part)) await stream.onDrain()
  }
  await stream.close()
}

async function sink (stream) {
  let counted = 0
  for await (const part of readAll(stream)) counted += part.byteLength
  await send(stream, u64(counted))
  await stream.close()
}

async function perf (stream) {
  const head = []
  let counted = 0
  for await (const part of readAll(stream)) {
    if (counted < 8) head.push(part.subarray())
    counted += part.byteLength
  }
  await sendBytes(stream, ZEROS, Number(Buffer.concat(head).readBigUInt64BE(0)))
  await stream.close()
}

/** What we know of a peer, once identify has told us. */
async function report (node, stream, connection, busy) {
  const deadline = performance.now() + 5000
  let peer
  do {
    peer = await node.peerStore.get(connection.remotePeer)
    if (peer.metadata.has('AgentVersion')) break
    await pause(10)
  } while (performance.now() < deadline)
  const open = await openStreams(connection, { except: stream.id, busy })
  peer = await node.peerStore.get(connection.remotePeer)
  const text = key => Buffer.from(peer.metadata.get(key) ?? []).toString()
  return {
    peerId: connection.remotePeer.toString(),
    open,
    protocols: peer.protocols,
    agent: text('AgentVersion'),
    protocolVersion: text('ProtocolVersion'),
    signedPeerRecord: peer.peerRecordEnvelope != null,
    addrs: peer.addresses.map(address => address.multiaddr.toString())
  }
}

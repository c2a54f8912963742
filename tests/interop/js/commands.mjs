// What a js-libp2p dialler can be asked to do. Each command gets a node of its own and returns what it found.
import { randomBytes } from 'node:crypto'
import {
  AFTER_EOF, AWAIT_RESET, ECHO, HALF_CLOSE, NEVER, PERF, PING, PUSHED, REPORT, RESET, SINK,
  collect, openStreams, readAll, readExactly, round, send, sendBytes, timer, u64
} from './common.mjs'
import { digest } from './handlers.mjs'

const HOLD_FOR_PUSH_MS = 10_000
const MEGABYTE = 1e6

const describe = connection => ({ encryption: connection.encryption, muxer: connection.multiplexer })

const perSecond = (count, { seconds }) => round(count / Math.max(seconds, 0.001), 1)

async function dial ({ node, target, signal }) {
  const took = timer()
  const connection = await node.dial(target, { signal })
  return { connection, connectSeconds: took().seconds }
}

const open = (connection, protocol, { signal }) => connection.newStream(protocol, { signal, maxOutboundStreams: 100_000 })

function identified (node, signal) {
  return new Promise((resolve, reject) => {
    node.addEventListener('peer:identify', event => resolve(event.detail), { once: true })
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}

/** Write all data while reading, end our side, and return what came until the peer ended. */
async function exchange (stream, data, { signal, chunk }) {
  const incoming = collect(stream)
  incoming.catch(() => {}) // reported below, after what the writer has to say
  await sendBytes(stream, data, data.byteLength, signal, chunk)
  await stream.close({ signal })
  return incoming
}

async function askReport (connection, context) {
  const stream = await open(connection, REPORT, context)
  return JSON.parse((await exchange(stream, Buffer.alloc(0), context)).toString() || '{}')
}

/** What identify told us. */
async function info (context) {
  const told = identified(context.node, context.signal)
  const { connection } = await dial(context)
  const detail = await told
  return {
    ...describe(connection),
    agent: detail.agentVersion,
    protocolVersion: detail.protocolVersion,
    protocols: detail.protocols,
    listenAddrs: detail.listenAddrs.map(String),
    observedAddr: String(detail.observedAddr ?? ''),
    signedPeerRecord: detail.signedPeerRecord != null
  }
}

/** N pings on one stream. */
async function ping (context) {
  const n = Number(context.args[0] ?? 100)
  const { connection, connectSeconds } = await dial(context)
  const stream = await open(connection, PING, context)
  const incoming = readAll(stream)
  const took = timer()
  for (let i = 0; i < n; i++) {
    const sent = randomBytes(32)
    await send(stream, sent, context.signal)
    if (!sent.equals(await readExactly(incoming, 32))) throw new Error(`ping ${i} came back changed`)
  }
  const time = took()
  await stream.close({ signal: context.signal })
  return { ...describe(connection), connectSeconds, n, ...time, perSecond: perSecond(n, time) }
}

/** N pings by js-libp2p's own service, which opens a stream for each and ends its side with the request. */
async function pingService (context) {
  const n = Number(context.args[0] ?? 1)
  const { connection } = await dial(context)
  const roundTripMs = []
  for (let i = 0; i < n; i++) roundTripMs.push(await context.node.services.ping.ping(connection.remotePeer, { signal: context.signal }))
  return { n, roundTripMs, openStreams: await openStreams(connection) }
}

/** SIZE bytes there and back, compared. */
async function echo (context) {
  const size = Number(context.args[0] ?? 32)
  const { connection } = await dial(context)
  const data = randomBytes(size)
  const back = await exchange(await open(connection, ECHO, context), data, context)
  return { bytes: back.byteLength, sha256: digest(back), ok: data.equals(back), openStreams: await openStreams(connection) }
}

/** BYTES to the sink, over so many streams at once, counted by the peer. */
async function upload (context) {
  const bytes = Number(context.args[0] ?? 0)
  const { connection, connectSeconds } = await dial(context)
  const share = Math.floor(bytes / context.concurrency)
  const took = timer()
  const counts = await Promise.all(Array.from({ length: context.concurrency }, (_, k) =>
    uploadOne(connection, k === 0 ? bytes - share * (context.concurrency - 1) : share, context)
  ))
  const time = took()
  const counted = counts.reduce((sum, count) => sum + count, 0)
  return { ...describe(connection), connectSeconds, bytes, counted, ok: counted === bytes, ...time, MBps: perSecond(bytes / MEGABYTE, time) }
}

async function uploadOne (connection, bytes, context) {
  const stream = await open(connection, SINK, context)
  const incoming = collect(stream)
  incoming.catch(() => {})
  await sendBytes(stream, new Uint8Array(context.chunk), bytes, context.signal, context.chunk)
  await stream.close({ signal: context.signal })
  return Number((await incoming).readBigUInt64BE(0))
}

/** BYTES by perf. */
async function download (context) {
  const bytes = Number(context.args[0] ?? 0)
  const { connection, connectSeconds } = await dial(context)
  const took = timer()
  const stream = await open(connection, PERF, context)
  const incoming = readAll(stream)
  await send(stream, u64(bytes), context.signal)
  await stream.close({ signal: context.signal })
  let counted = 0
  for await (const part of incoming) counted += part.byteLength
  const time = took()
  return { ...describe(connection), connectSeconds, bytes, counted, ok: counted === bytes, ...time, MBps: perSecond(bytes / MEGABYTE, time) }
}

/** Run n pieces of work, so many at once. */
async function inParallel (n, concurrency, work) {
  let next = 0
  let failed = 0
  let lastError
  await Promise.all(Array.from({ length: concurrency }, async () => {
    while (next++ < n) {
      try {
        await work()
      } catch (err) {
        failed++
        lastError = `${err.name}: ${err.message}`
      }
    }
  }))
  return { n, failed, lastError }
}

/** N streams, so many at once: 32 bytes echoed on each. */
async function streams (context) {
  const n = Number(context.args[0] ?? 1)
  const { connection, connectSeconds } = await dial(context)
  const data = randomBytes(32)
  const took = timer()
  const outcome = await inParallel(n, context.concurrency, async () => {
    const back = await exchange(await open(connection, ECHO, context), data, context)
    if (!data.equals(back)) throw new Error('what came back differs')
  })
  const time = took()
  const answer = { ...outcome, connectSeconds, ...time, perSecond: perSecond(n, time), openStreams: await openStreams(connection) }
  if (context.report) answer.report = await askReport(connection, context)
  return answer
}

/** Both orders of ending: the peer answers after our end, and the peer ends first and still reads. */
async function halfClose (context) {
  const size = Number(context.args[0] ?? 100_000)
  const data = randomBytes(size)
  const { connection } = await dial(context)
  const back = await exchange(await open(connection, AFTER_EOF, context), data, context)
  const stream = await open(connection, HALF_CLOSE, context)
  const first = await collect(stream)
  await sendBytes(stream, data, size, context.signal, context.chunk)
  await stream.close({ signal: context.signal })
  return {
    ok: data.equals(back),
    bytes: size,
    sha256: digest(data),
    first: first.toString(),
    openStreams: await openStreams(connection),
    report: await askReport(connection, context)
  }
}

/** We reset. js-libp2p sends no code. */
async function reset (context) {
  const { connection } = await dial(context)
  const stream = await open(connection, AWAIT_RESET, context)
  const incoming = readAll(stream)
  await send(stream, Buffer.from('r'), context.signal)
  await readExactly(incoming, 1)
  stream.abort(new Error('told to reset'))
  return { openStreams: await openStreams(connection), report: await askReport(connection, context) }
}

/** The peer resets. */
async function resetBy (context) {
  const { connection } = await dial(context)
  const stream = await open(connection, RESET, context)
  const code = Buffer.alloc(4)
  code.writeUInt32BE(Number(context.args[0] ?? 0))
  await send(stream, code, context.signal)
  const answer = {}
  try {
    await collect(stream)
  } catch (err) {
    answer.reset = err.name
  }
  return { ...answer, openStreams: await openStreams(connection) }
}

/** A protocol that the peer does not speak, and then one that it does. */
async function na (context) {
  const { connection } = await dial(context)
  const answer = { eager: '' }
  try {
    await open(connection, NEVER, context)
  } catch (err) {
    answer.eager = err.name
  }
  answer.after = (await exchange(await open(connection, ECHO, context), Buffer.from('still here'), context)).toString()
  return answer
}

/** Our protocols change, so that identify-push goes out; stays until the peer disconnects. */
async function push (context) {
  const told = identified(context.node, context.signal)
  const { connection } = await dial(context)
  await told
  const gone = new Promise(resolve => connection.addEventListener('close', () => resolve(true), { once: true }))
  await context.node.handle(PUSHED, stream => stream.close())
  let waiting
  const disconnected = await Promise.race([gone, new Promise(resolve => { waiting = setTimeout(resolve, HOLD_FOR_PUSH_MS, false) })])
  clearTimeout(waiting)
  return { disconnected }
}

/** What the peer knows of us. */
async function report (context) {
  const { connection } = await dial(context)
  return { report: await askReport(connection, context) }
}

/** One node connects and disconnects N times. */
async function redial (context) {
  const n = Number(context.args[0] ?? 1)
  const took = timer()
  const outcome = await inParallel(n, context.concurrency, async () => {
    const connection = await context.node.dial(context.target, { signal: context.signal, force: true })
    await connection.close({ signal: context.signal })
  })
  const time = took()
  return { ...outcome, ...time, perSecond: perSecond(n - outcome.failed, time) }
}

export const commands = {
  info, ping, 'ping-service': pingService, echo, upload, download, streams, 'half-close': halfClose, reset, 'reset-by': resetBy,
  na, push, report, redial, handshakes: redial
}

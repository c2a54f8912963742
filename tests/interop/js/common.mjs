// What the js-libp2p listener and dialler share: how a node is made, and how a stream is read and written.
import { generateKeyPair } from '@libp2p/crypto/keys'
import { identify, identifyPush } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { pEvent } from 'p-event'

export const ECHO = '/echo/1.0.0' // sends back what it reads, as it comes
export const STOCK_ECHO = '/stock-echo/1.0.0' // the same, written as the documentation of js-libp2p writes it
export const SINK = '/sink/1.0.0' // reads to the end, answers the count as 8 bytes
export const PERF = '/perf/1.0.0' // libp2p's perf
export const AFTER_EOF = '/after-eof/1.0.0' // reads to the end, then sends it all back
export const HALF_CLOSE = '/half-close/1.0.0' // sends "done", ends its own side, then reads on
export const RESET = '/reset/1.0.0' // reads something and resets
export const AWAIT_RESET = '/await-reset/1.0.0' // answers one byte with one, then notes how the stream ended
export const STALL = '/stall/1.0.0' // negotiates and never reads
export const PUSH = '/push/1.0.0' // changes our protocols, so that identify-push goes out
export const PUSHED = '/pushed/1.0.0' // the protocol that is then new
export const REPORT = '/report/1.0.0' // answers with what we know of the one who asks
export const NEVER = '/never/1.0.0' // nobody speaks it
export const PING = '/ipfs/ping/1.0.0'

const KEY_TYPES = { ed25519: 'Ed25519', rsa: 'RSA', secp256k1: 'secp256k1', ecdsa: 'ECDSA' }
const MANY = { maxInboundStreams: 100_000, maxOutboundStreams: 100_000 }

/** Limits of a handler: js-libp2p's own with `--stock`, else none that a test could meet. */
export const handlerLimits = stock => (stock ? {} : MANY)

/** Split words into flags (`--name value`, `--name=value`, `--name`) and the rest, which is kept in `_`. */
export function parseArgs (words, booleans = []) {
  const flags = { _: [] }
  for (let i = 0; i < words.length; i++) {
    const word = words[i]
    if (!word.startsWith('--')) {
      flags._.push(word)
      continue
    }
    const [name, value] = word.slice(2).split('=', 2)
    flags[name] = value ?? (booleans.includes(name) ? true : words[++i])
  }
  return flags
}

/**
 * Say how a node is made: `keyType` is one of KEY_TYPES, and RSA keys have 2048 bits. The defaults of js-libp2p accept 5 connections
 * a second and 32 streams of a protocol, and drop a connection whose pings wait behind bulk data: all that is lifted unless `stock`
 * is set. The ping service is theirs either way.
 */
export async function nodeOptions ({ listen = [], stock = false, identifyOn = true, keyType = 'ed25519' } = {}) {
  const services = { ping: ping(stock ? {} : { ...MANY, timeout: 3_600_000 }) }
  if (identifyOn) {
    services.identify = identify()
    services.identifyPush = identifyPush()
  }
  const options = {
    privateKey: await generateKeyPair(KEY_TYPES[keyType]),
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux(stock ? {} : MANY)],
    services
  }
  if (!stock) {
    options.connectionManager = { maxConnections: 100_000, inboundConnectionThreshold: 1e9, maxIncomingPendingConnections: 100_000 }
    options.connectionMonitor = { enabled: false }
  }
  return options
}

export const makeNode = async wanted => createLibp2p(await nodeOptions(wanted))

/**
 * Yield what arrives on a stream until it ends.
 *
 * The stream's own iterator ends on 'remoteCloseWrite' or 'close' and never ends when that event came before the
 * iterator was made, and 'end' comes while multistream-select still holds unread bytes: so the state is looked at.
 */
export async function * readAll (stream) {
  const queue = []
  let done = false
  let error
  let wake
  const look = () => {
    if (stream.remoteWriteStatus === 'closed' && stream.readBufferLength === 0) done = true
    wake?.()
    wake = undefined
  }
  const onMessage = event => { queue.push(event.data); look() }
  const onClose = event => { done = true; error = event.error; look() }
  stream.addEventListener('message', onMessage)
  stream.addEventListener('remoteCloseWrite', look)
  stream.addEventListener('end', look)
  stream.addEventListener('close', onClose)
  look()
  try {
    while (true) {
      if (queue.length > 0) {
        yield queue.shift()
        continue
      }
      if (error != null) throw error
      if (done) return
      await new Promise(resolve => { wake = resolve })
    }
  } finally {
    stream.removeEventListener('message', onMessage)
    stream.removeEventListener('remoteCloseWrite', look)
    stream.removeEventListener('end', look)
    stream.removeEventListener('close', onClose)
  }
}

/** Read a stream to its end into one buffer. */
export async function collect (stream) {
  const parts = []
  for await (const part of readAll(stream)) parts.push(part.subarray())
  return Buffer.concat(parts)
}

/** Read exactly so many bytes from an iterator of readAll; more than that in one piece is an error. */
export async function readExactly (iterator, size) {
  const parts = []
  let got = 0
  while (got < size) {
    const { value, done } = await iterator.next()
    if (done) throw new Error(`the stream ended after ${got} of ${size} bytes`)
    parts.push(value.subarray())
    got += value.byteLength
  }
  if (got > size) throw new Error(`${got} bytes came where ${size} were due`)
  return Buffer.concat(parts)
}

/** Send one buffer and wait for room. `stream.onDrain()` is not armed again after its first drain, hence the event. */
export async function send (stream, data, signal) {
  if (!stream.send(data)) await pEvent(stream, 'drain', { rejectionEvents: ['close'], signal })
}

/** Send so many bytes of a buffer (repeated if need be), `chunk` at a time. */
export async function sendBytes (stream, buffer, bytes, signal, chunk = 65536) {
  for (let at = 0; at < bytes; at += chunk) {
    const size = Math.min(chunk, bytes - at)
    const from = buffer.byteLength >= bytes ? at : 0
    await send(stream, buffer.subarray(from, from + size), signal)
  }
}

export function u64 (value) {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value))
  return bytes
}

/**
 * Count a connection's streams by protocol, once those that are about to end have had the time to.
 * A ping stream is kept by whoever opened it, and does not count.
 */
export async function openStreams (connection, { except, busy = () => false, waitMs = 5000 } = {}) {
  const deadline = performance.now() + waitMs
  while (true) {
    const open = {}
    for (const stream of connection.streams) {
      if (stream.id !== except && stream.protocol !== PING) open[stream.protocol] = (open[stream.protocol] ?? 0) + 1
    }
    if ((Object.keys(open).length === 0 && !busy()) || performance.now() > deadline) return open
    await pause(5)
  }
}

/** Start a clock; what it returns tells the seconds and the processor time since then. */
export function timer () {
  const cpu = process.cpuUsage()
  const start = performance.now()
  return () => {
    const { user, system } = process.cpuUsage(cpu)
    return { seconds: round((performance.now() - start) / 1000), cpuSeconds: round((user + system) / 1e6) }
  }
}

export const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
export const round = (value, digits = 3) => Number(value.toFixed(digits))
export const out = value => process.stdout.write(JSON.stringify(value) + '\n')

// Helia: a node that serves and fetches blocks by Bitswap, and what a dialler can be asked to fetch.
//   get CID [OUT]            a file, or a directory into a new one
//   fetch CID...             single blocks
//   blocks SEED COUNT SIZE   numbered blocks, --window of them wanted at once
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { MemoryBlockstore } from 'blockstore-core'
import { createHeliaLight } from 'helia'
import { exporter } from 'ipfs-unixfs-exporter'
import { CID } from 'multiformats/cid'
import { nodeOptions, round, timer } from './common.mjs'
import { blockAt } from './content.mjs'
import { digest } from './handlers.mjs'

const SLICE_SECONDS = 0.5
const FILES_AT_ONCE = 32
const FOREVER_MS = 600_000

/**
 * Make a Helia node whose only source of blocks is Bitswap. Its defaults drop all but 10 queued
 * messages, wants over 1024 and messages that take over 10 s: that is lifted unless `stock` is set. What stays is that a
 * block is not sent twice in 5 s to one peer: without that time Helia forgets a want-have before the want-block comes.
 */
export async function makeHelia (wanted) {
  const limits = wanted.stock
    ? {}
    : {
        sendBlocksMaxQueueLength: 1e6,
        maxWantListSize: 1e6, // the name that is documented, maxWantlistSize, is not the one that is read
        messageReceiveTimeout: FOREVER_MS,
        messageSendTimeout: FOREVER_MS
      }
  const light = createHeliaLight({ blockstore: new MemoryBlockstore() })
  return withBitswap(withLibp2pLight(light, await nodeOptions(wanted)), limits).start()
}

/** Connect, and return where blocks are read from: a session with that one peer. */
async function connect ({ node, target, signal }, root) {
  await node.libp2p.dial(target, { signal })
  return node.blockstore.createSession(root, { providers: [target], minProviders: 1, maxProviders: 1 })
}

async function blockFrom (session, cid, signal) {
  const parts = []
  for await (const part of session.get(cid, { signal })) parts.push(part)
  return parts.length === 1 ? parts[0] : Buffer.concat(parts)
}

/** Work on all items, so many at once. */
async function inParallel (items, concurrency, work) {
  let next = 0
  await Promise.all(Array.from({ length: concurrency }, async () => {
    while (next < items.length) await work(items[next++])
  }))
}

/** Read a file to its end, into `out` unless that is missing; return its SHA-256. */
async function readFile (entry, out, count, signal) {
  const sum = createHash('sha256')
  const file = out == null ? undefined : fs.openSync(out, 'wx')
  try {
    for await (const part of entry.content({ signal })) {
      sum.update(part)
      count.bytes += part.byteLength
      if (file != null) fs.writeSync(file, part)
    }
  } finally {
    if (file != null) fs.closeSync(file)
  }
  count.files++
  return sum.digest('hex')
}

async function readTree (entry, session, out, count, signal) {
  if (entry.type !== 'directory') {
    await readFile(entry, out, count, signal)
    return
  }
  if (out != null) fs.mkdirSync(out)
  const children = []
  for await (const child of entry.entries({ signal })) children.push(child)
  await inParallel(children, FILES_AT_ONCE, async ({ name, cid }) => {
    if (['', '.', '..'].includes(name) || /[/\0]/.test(name)) throw new Error(`an entry is named ${JSON.stringify(name)}`)
    const below = out == null ? undefined : path.join(out, name)
    await readTree(await exporter(cid, session, { signal }), session, below, count, signal)
  })
}

async function get (context) {
  const { node, args, signal } = context
  const root = CID.parse(args[0])
  const out = args[1] === '-' ? undefined : args[1]
  const session = await connect(context, root)
  const count = { files: 0, bytes: 0 }
  const took = timer()
  const entry = await exporter(root, session, { signal })
  const kind = entry.type === 'directory' ? { type: 'directory' } : { type: 'file' }
  if (entry.type === 'directory') await readTree(entry, session, out, count, signal)
  else kind.sha256 = await readFile(entry, out, count, signal)
  const times = took()
  let blocks = 0
  for await (const pair of node.blockstore.getAll()) if (pair != null) blocks++
  return { cid: args[0], ...kind, ...count, blocks, ...times, MBps: round(count.bytes / 1e6 / times.seconds, 1) }
}

async function fetch (context) {
  const cids = context.args.map(text => CID.parse(text))
  const session = await connect(context, cids[0])
  const took = timer()
  const fetched = []
  for (const cid of cids) {
    const data = await blockFrom(session, cid, context.signal)
    fetched.push({ cid: cid.toString(), bytes: data.byteLength, sha256: digest(data) })
  }
  return { fetched, ...took() }
}

async function blocks (context) {
  const [seed, count, size] = [context.args[0], Number(context.args[1]), Number(context.args[2])]
  const cids = Array.from({ length: count }, (_, i) => blockAt(seed, i, size).cid)
  const session = await connect(context, cids[0])
  const slices = []
  let n = 0
  let bytes = 0
  const start = performance.now()
  const took = timer()
  await inParallel(cids, context.window, async cid => {
    const data = await blockFrom(session, cid, context.signal)
    n++
    bytes += data.byteLength
    const slice = Math.floor((performance.now() - start) / 1000 / SLICE_SECONDS)
    while (slices.length <= slice) slices.push(0)
    slices[slice]++
  })
  const times = took()
  const rates = { perSecond: round(n / times.seconds, 1), MBps: round(bytes / 1e6 / times.seconds, 1) }
  return { n, bytes, ok: n === count && bytes === count * size, ...times, ...rates, slices, sliceSeconds: SLICE_SECONDS }
}

export const commands = { get, fetch, blocks }

// What a listener that serves Bitswap does when a line of its stdin says so.
//   add PATH                 a file or a directory, by @helia/unixfs; --chunk-bytes 262144 --links 174
//   generate SEED SIZE       a file of generated content; the same flags
//   block SEED SIZE...       single raw blocks of these sizes
//   blocks SEED COUNT SIZE   raw blocks, numbered
//   remove CID               forget one block
import fs from 'node:fs'
import path from 'node:path'
import { unixfs } from '@helia/unixfs'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { CID } from 'multiformats/cid'
import { parseArgs, timer } from './common.mjs'
import { blockAt, blockOf, contentOf } from './content.mjs'

const READ_BYTES = 1 << 20

/** Run one command on a Helia node and return its answer, which has `error` when it failed. */
export async function runStoreCommand (helia, words) {
  const flags = parseArgs(words.map(String))
  const [cmd, ...args] = flags._
  const took = timer()
  try {
    if (commands[cmd] == null) throw new Error('no such command')
    return { ...await commands[cmd](helia, args, importOptions(flags)), cmd, ...took() }
  } catch (err) {
    return { cmd, error: `${err.name}: ${err.message}` }
  }
}

/** What is left of the defaults of @helia/unixfs when the sizes are given. */
function importOptions (flags) {
  return {
    cidVersion: 1,
    rawLeaves: true,
    shardSplitStrategy: 'links-bytes',
    shardSplitThresholdBytes: 262_144,
    chunker: fixedSize({ chunkSize: Number(flags['chunk-bytes'] ?? 262_144) }),
    layout: balanced({ maxChildrenPerNode: Number(flags.links ?? 174) })
  }
}

const commands = {
  async add (helia, [source], options) {
    const count = { files: 0, bytes: 0 }
    let root
    if (fs.lstatSync(source).isDirectory()) {
      // The directory itself comes last.
      for await (const { cid } of unixfs(helia).addAll(candidates(source, 'root', count), options)) root = cid
    } else {
      root = await unixfs(helia).addByteStream(candidate(source, count).content, options)
    }
    return { cid: root.toString(), ...count }
  },

  async generate (helia, [seed, size], options) {
    const bytes = Number(size)
    const cid = await unixfs(helia).addByteStream(contentOf(seed, bytes), options)
    return { cid: cid.toString(), files: 1, bytes }
  },

  async block (helia, [seed, ...sizes]) {
    const cids = {}
    for (const size of sizes) {
      const { cid, data } = blockOf(seed, Number(size))
      await helia.blockstore.put(cid, data)
      cids[size] = cid.toString()
    }
    return { cids }
  },

  async blocks (helia, [seed, count, size]) {
    for (let i = 0; i < Number(count); i++) {
      const { cid, data } = blockAt(seed, i, Number(size))
      await helia.blockstore.put(cid, data)
    }
    return { n: Number(count), bytes: Number(count) * Number(size) }
  },

  async remove (helia, [cid]) {
    // Helia's own delete also asks content routers, of which there are none.
    await helia.components.blockstore.delete(CID.parse(cid))
    return { cid }
  }
}

function candidate (source, count) {
  const info = fs.lstatSync(source)
  if (!info.isFile()) throw new Error(`${source} is no file or directory`)
  count.files++
  count.bytes += info.size
  return { content: fs.createReadStream(source, { highWaterMark: READ_BYTES }) }
}

/** Yield what is in a directory; the directory itself only if nothing is. */
function * candidates (source, name, count) {
  const entries = fs.readdirSync(source, { withFileTypes: true })
  if (entries.length === 0) yield { path: name }
  for (const entry of entries) {
    const below = path.join(source, entry.name)
    if (entry.isDirectory()) yield * candidates(below, `${name}/${entry.name}`, count)
    else yield { path: `${name}/${entry.name}`, ...candidate(below, count) }
  }
}

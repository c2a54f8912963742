// Helia's side of the comparison of fetching: a file into the node's memory blockstore and onto the disk. The dialler of
// the interoperability tests also digests the file while it fetches, which is more work than the others do.
//   node fetching.mjs   commands from stdin, one JSON array [ADDR, CID, OUT] a line; one JSON line back for each
import fs from 'node:fs'
import readline from 'node:readline'
import { multiaddr } from '@multiformats/multiaddr'
import { exporter } from 'ipfs-unixfs-exporter'
import { CID } from 'multiformats/cid'
import { makeHelia } from './bitswap.mjs'
import { out, timer } from './common.mjs'

const COMMAND_MS = 300_000

async function get (node, target, root, file) {
  const signal = AbortSignal.timeout(COMMAND_MS)
  await node.libp2p.dial(target, { signal })
  const took = timer()
  const session = node.blockstore.createSession(root, { providers: [target], minProviders: 1, maxProviders: 1 })
  const entry = await exporter(root, session, { signal })
  let bytes = 0
  for await (const part of entry.content({ signal })) {
    fs.writeSync(file, part)
    bytes += part.byteLength
  }
  return { bytes, ...took() }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [address, cid, path] = JSON.parse(line)
  const node = await makeHelia({})
  const file = fs.openSync(path, 'wx')
  try {
    out(await get(node, multiaddr(address), CID.parse(cid), file))
  } catch (err) {
    out({ error: `${err.name}: ${err.message}` })
  } finally {
    fs.closeSync(file)
    await node.stop()
  }
}
process.exit(0)

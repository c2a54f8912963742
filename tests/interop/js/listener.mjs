// A js-libp2p listener. Prints one JSON line when it is ready; ends on SIGTERM, or when stdin closes with --stdin.
//   node listener.mjs [--host 127.0.0.1] [--port 0] [--stock] [--no-identify] [--stall [--stop-after BYTES]] [--log] [--stdin]
//     [--key-type ed25519|rsa|secp256k1|ecdsa] of the node's key
//     [--bitswap] serve blocks by Bitswap; commands from stdin (store.mjs lists them), one JSON array a line, add them
//     [--file PATH] add this file or directory at once, and name its CID; as --bitswap
import readline from 'node:readline'
import { makeNode, out, parseArgs } from './common.mjs'
import { handleAll, stallAll } from './handlers.mjs'

const flags = parseArgs(process.argv.slice(2), ['stock', 'no-identify', 'stall', 'log', 'stdin', 'bitswap'])
const wanted = {
  listen: [`/ip4/${flags.host ?? '127.0.0.1'}/tcp/${flags.port ?? 0}`],
  stock: flags.stock === true,
  identifyOn: flags['no-identify'] !== true,
  keyType: flags['key-type']
}
let helia
let take = () => ({ error: '--bitswap is needed for commands' })
if (flags.bitswap || flags.file) {
  const bitswap = await import('./bitswap.mjs')
  const { runStoreCommand } = await import('./store.mjs')
  helia = await bitswap.makeHelia(wanted)
  take = words => runStoreCommand(helia, words)
}
const node = helia?.libp2p ?? await makeNode(wanted)
await handleAll(node, { stock: flags.stock === true, log: flags.log === true })
if (flags.stall) await stallAll(node, Number(flags['stop-after'] ?? 0))

const sizes = ['chunk-bytes', 'links'].filter(name => flags[name] != null).map(name => `--${name}=${flags[name]}`)
const added = flags.file ? await take([...sizes, 'add', flags.file]) : {}
const addrs = node.getMultiaddrs().map(String)
out({ ...added, addr: addrs[0], addrs, peerId: node.peerId.toString(), pid: process.pid, node: process.version, protocols: node.getProtocols() })

let stopping = false
function stop () {
  if (stopping) return
  stopping = true
  const { user, system } = process.cpuUsage()
  console.error(JSON.stringify({ listenerCpu: (user + system) / 1e6 }))
  process.exit(0)
}
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
process.on('unhandledRejection', err => { console.error('unhandledRejection', err) })
if (flags.stdin) {
  for await (const line of readline.createInterface({ input: process.stdin })) out(await take(JSON.parse(line)))
  stop()
}

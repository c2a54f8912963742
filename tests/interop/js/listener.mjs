// A js-libp2p listener. Prints one JSON line when it is ready; ends on SIGTERM, or when stdin closes with --stdin.
//   node listener.mjs [--host 127.0.0.1] [--port 0] [--stock] [--no-identify] [--stall [--stop-after BYTES]] [--log] [--stdin]
import { makeNode, out, parseArgs } from './common.mjs'
import { handleAll, stallAll } from './handlers.mjs'

const flags = parseArgs(process.argv.slice(2), ['stock', 'no-identify', 'stall', 'log', 'stdin'])
const node = await makeNode({
  listen: [`/ip4/${flags.host ?? '127.0.0.1'}/tcp/${flags.port ?? 0}`],
  stock: flags.stock === true,
  identifyOn: flags['no-identify'] !== true
})
await handleAll(node, { stock: flags.stock === true, log: flags.log === true })
if (flags.stall) await stallAll(node, Number(flags['stop-after'] ?? 0))

const addrs = node.getMultiaddrs().map(String)
out({ addr: addrs[0], addrs, peerId: node.peerId.toString(), pid: process.pid, node: process.version, protocols: node.getProtocols() })

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
if (flags.stdin) process.stdin.resume().on('end', stop)

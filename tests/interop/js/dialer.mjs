// A js-libp2p dialler.
//   node dialer.mjs COMMAND ADDR [ARG]... [flags]   run one command (commands.mjs and bitswap.mjs list them), print one JSON line
//   node dialer.mjs session                         run commands from stdin, one JSON array a line, one JSON line back for each
// Flags: --concurrency K --chunk BYTES --timeout SECONDS --stock --no-identify
//   --key-type ed25519|rsa|secp256k1|ecdsa (of the node's key)
//   --report (streams: also say what the peer sees left open) --window N (blocks: wanted at once)
import readline from 'node:readline'
import { multiaddr } from '@multiformats/multiaddr'
import { makeNode, out, parseArgs } from './common.mjs'
import { commands } from './commands.mjs'

const BITSWAP_COMMANDS = ['get', 'fetch', 'blocks']
const BOOLEANS = ['stock', 'no-identify', 'report', 'debug']

async function run (words) {
  const flags = parseArgs(words.map(String), BOOLEANS)
  const [cmd, address, ...args] = flags._
  const answer = { cmd, node: process.version }
  // Helia takes a second to load: only what needs it pays.
  const bitswap = BITSWAP_COMMANDS.includes(cmd) ? await import('./bitswap.mjs') : undefined
  const action = bitswap?.commands[cmd] ?? commands[cmd]
  if (action == null || address == null) return { ...answer, error: 'usage: COMMAND ADDR [ARG]...' }
  let node
  try {
    const wanted = { stock: flags.stock === true, identifyOn: flags['no-identify'] !== true, keyType: flags['key-type'] }
    node = bitswap == null ? await makeNode(wanted) : await bitswap.makeHelia(wanted)
    if (bitswap == null) answer.peerId = node.peerId.toString()
    const context = {
      node,
      target: multiaddr(address),
      args,
      concurrency: Number(flags.concurrency ?? 1),
      report: flags.report === true,
      chunk: Number(flags.chunk ?? 65536),
      window: Number(flags.window ?? 128),
      signal: AbortSignal.timeout(Number(flags.timeout ?? 60) * 1000)
    }
    Object.assign(answer, await action(context))
  } catch (err) {
    if (flags.debug) console.error(err)
    Object.assign(answer, { error: `${err.name}: ${err.message}`, cause: err.errors?.map(String) })
  } finally {
    await node?.stop()
  }
  return answer
}

process.on('unhandledRejection', err => { console.error('unhandledRejection', err) })
if (process.argv[2] === 'session') {
  for await (const line of readline.createInterface({ input: process.stdin })) out(await run(JSON.parse(line)))
  process.exit(0)
}
const answer = await run(process.argv.slice(2))
out(answer)
process.exit(answer.error == null ? 0 : 1)

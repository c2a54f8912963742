// js-libp2p's side of "dial + identify": connect, wait for the peer's identify, disconnect. The dialler of the
// interoperability tests disconnects without waiting for identify, which is less work than the others do.
//   node redial.mjs   commands from stdin, one JSON array [ADDR, N] a line; one JSON line back for each
import readline from 'node:readline'
import { makeNode, out } from '../../tests/interop/js/common.mjs'
import { multiaddr } from '../../tests/interop/js/node_modules/@multiformats/multiaddr/dist/src/index.js'

async function redial (node, target, n) {
  const start = performance.now()
  for (let i = 0; i < n; i++) {
    const identified = new Promise(resolve => node.addEventListener('peer:identify', resolve, { once: true }))
    const connection = await node.dial(target)
    await identified
    await connection.close()
  }
  const seconds = (performance.now() - start) / 1000
  return { n, seconds, perSecond: n / seconds }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [address, n] = JSON.parse(line)
  const node = await makeNode()
  try {
    out(await redial(node, multiaddr(address), n))
  } catch (err) {
    out({ error: `${err.name}: ${err.message}` })
  } finally {
    await node.stop()
  }
}

// Bytes that every program and the tests make alike from a seed, and the blocks made of them.
import { createHash } from 'node:crypto'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { create } from 'multiformats/hashes/digest'

const PIECE_BYTES = 1 << 20
const SHA2_256 = 0x12

/** Yield SHAKE128 of "SEED/0", "SEED/1", …, a MiB of each, cut at the size. */
export function * contentOf (seed, size) {
  for (let at = 0, piece = 0; at < size; at += PIECE_BYTES, piece++) {
    yield createHash('shake128', { outputLength: Math.min(PIECE_BYTES, size - at) }).update(`${seed}/${piece}`).digest()
  }
}

export function rawBlock (data) {
  const sum = createHash('sha256').update(data).digest()
  return { cid: CID.createV1(raw.code, create(SHA2_256, sum)), data }
}

export const blockOf = (seed, size) => rawBlock(Buffer.concat([...contentOf(seed, size)]))

/** The block number `i` of those named by a seed. */
export const blockAt = (seed, i, size) => blockOf(`${seed}/block/${i}`, size)

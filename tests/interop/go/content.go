package main

import (
	"crypto/sha3"
	"errors"
	"io"
	"strconv"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

const pieceBytes = 1 << 20

// content reads the bytes that every program and the tests make alike from a seed:
// SHAKE128 of "SEED/0", "SEED/1", …, a MiB of each, cut at the size.
type content struct {
	seed  string
	left  int64
	piece int
	rest  []byte
}

func contentOf(seed string, size int64) *content { return &content{seed: seed, left: size} }

func (c *content) Read(buf []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if len(c.rest) == 0 {
		c.rest = sha3.SumSHAKE128([]byte(c.seed+"/"+strconv.Itoa(c.piece)), int(min(pieceBytes, c.left)))
		c.piece++
	}
	n := copy(buf, c.rest)
	c.rest, c.left = c.rest[n:], c.left-int64(n)
	return n, nil
}

func rawBlock(data []byte) (blocks.Block, error) {
	sum, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(data, cid.NewCidV1(cid.Raw, sum))
}

// blockAt is the block number i of those named by a seed: the content of "SEED/block/I".
func blockAt(seed string, i, size int) (blocks.Block, error) {
	data, err := io.ReadAll(contentOf(seed+"/block/"+strconv.Itoa(i), int64(size)))
	if err != nil {
		return nil, err
	}
	return rawBlock(data)
}

// blockRange is what SEED COUNT SIZE name in the arguments of a command.
type blockRange struct {
	seed        string
	count, size int
}

func rangeOf(args []string, at int) (blockRange, error) {
	if len(args) < at+3 {
		return blockRange{}, errors.New("SEED COUNT SIZE are needed")
	}
	count, err := strconv.Atoi(args[at+1])
	if err != nil {
		return blockRange{}, err
	}
	size, err := strconv.Atoi(args[at+2])
	return blockRange{args[at], count, size}, err
}

func (r blockRange) cids() ([]cid.Cid, error) {
	cids := make([]cid.Cid, r.count)
	for i := range cids {
		block, err := blockAt(r.seed, i, r.size)
		if err != nil {
			return nil, err
		}
		cids[i] = block.Cid()
	}
	return cids, nil
}

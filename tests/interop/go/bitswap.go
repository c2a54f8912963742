package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	fetching "github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// bitswapCommands: fetching by Bitswap, with boxo's client as Kubo sets it up.
var bitswapCommands = map[string]command{
	"get":     getTree,     // CID [OUT]: a file, or a directory into a new one; -graph fetches all blocks first
	"fetch":   fetchCids,   // CID...: single blocks
	"blocks":  fetchRange,  // SEED COUNT SIZE: numbered blocks, wanted all at once
	"slices":  fetchSlices, // SEED COUNT SIZE [ADDR]: two servers in turn, each for -slice, -slices times in all
	"hungry":  makeHungry,  // SEED COUNT SIZE: -peers hosts want these blocks and, by -mode, do not take them
	"satiate": satiate,     // ends them
}

// client is a host that fetches, and what it has fetched.
type client struct {
	*store
	host host.Host
	swap *bitswap.Bitswap
}

func startBitswap(h host.Host, s *store) *bitswap.Bitswap {
	return bitswap.New(context.Background(), bsnet.NewFromIpfsHost(h), nil, s.blocks)
}

func dialBitswap(ctx context.Context, o *options, target *peer.AddrInfo) (*client, error) {
	h, err := newHost(o)
	if err != nil {
		return nil, err
	}
	c := &client{newStore(), h, nil}
	c.swap = startBitswap(h, c.store)
	if err := h.Connect(ctx, *target); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *client) close() {
	_ = c.swap.Close()
	_ = c.host.Close()
}

// received adds what all the client's traffic came to.
func (c *client) received(answer result) {
	if stat, err := c.swap.Stat(); err == nil {
		answer["blocks"], answer["duplicates"] = stat.BlocksReceived, stat.DupBlksReceived
	}
}

func getTree(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	if len(args) < 1 {
		return nil, errors.New("a CID is needed")
	}
	root, err := cid.Decode(args[0])
	if err != nil {
		return nil, err
	}
	c, err := dialBitswap(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer c.close()
	start, cpu := time.Now(), cpuSeconds()
	dag := merkledag.NewSession(ctx, merkledag.NewDAGService(blockservice.New(c.blocks, c.swap)))
	if o.graph {
		err := merkledag.Walk(ctx, merkledag.GetLinksDirect(dag), root, cid.NewSet().Visit, merkledag.Concurrent())
		if err != nil {
			return nil, err
		}
	}
	node, err := dag.Get(ctx, root)
	if err != nil {
		return nil, err
	}
	tree, err := unixfile.NewUnixfsFile(ctx, merkledag.NewReadOnlyDagService(dag), node)
	if err != nil {
		return nil, err
	}
	out := ""
	if len(args) > 1 && args[1] != "-" {
		out = args[1]
	}
	answer := result{"cid": args[0]}
	var count added
	sum := sha256.New()
	if file, ok := tree.(files.File); ok {
		err = copyFile(file, out, sum, &count)
		answer["type"], answer["sha256"] = "file", hex.EncodeToString(sum.Sum(nil))
	} else {
		err = copyTree(tree, out, &count)
		answer["type"] = "directory"
	}
	if err != nil {
		return nil, err
	}
	answer["bytes"], answer["files"] = count.bytes, count.files
	answer["MBps"] = float64(count.bytes) / time.Since(start).Seconds() / 1e6
	finishTimed(answer, start, cpu)
	c.received(answer)
	return answer, nil
}

// copyFile reads a file to its end, into out unless that is empty, and counts and digests it.
func copyFile(file io.Reader, out string, sum io.Writer, count *added) error {
	sinks := []io.Writer{sum}
	if out != "" {
		created, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		defer created.Close()
		sinks = append(sinks, created)
	}
	n, err := io.CopyBuffer(io.MultiWriter(sinks...), struct{ io.Reader }{file}, make([]byte, 1<<18))
	count.files, count.bytes = count.files+1, count.bytes+n
	return err
}

func copyTree(node files.Node, out string, count *added) error {
	switch node := node.(type) {
	case *files.Symlink:
		if out == "" {
			return nil
		}
		return os.Symlink(node.Target, out)
	case files.File:
		return copyFile(node, out, io.Discard, count)
	case files.Directory:
		if out != "" {
			if err := os.Mkdir(out, 0o777); err != nil {
				return err
			}
		}
		entries := node.Entries()
		for entries.Next() {
			name, child := entries.Name(), ""
			if name == "." || name == ".." || name == "" || strings.ContainsAny(name, "/\x00") {
				return fmt.Errorf("an entry is named %q", name)
			}
			if out != "" {
				child = filepath.Join(out, name)
			}
			if err := copyTree(entries.Node(), child, count); err != nil {
				return err
			}
		}
		return entries.Err()
	}
	return fmt.Errorf("a node is a %T", node)
}

func fetchCids(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	c, err := dialBitswap(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer c.close()
	start, cpu := time.Now(), cpuSeconds()
	session := c.swap.NewSession(ctx)
	fetched := []result{}
	for _, text := range args {
		wanted, err := cid.Decode(text)
		if err != nil {
			return nil, err
		}
		block, err := session.GetBlock(ctx, wanted)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		data := block.RawData()
		fetched = append(fetched, result{"cid": block.Cid().String(), "bytes": len(data), "sha256": digest(data)})
	}
	answer := finishTimed(result{"fetched": fetched}, start, cpu)
	c.received(answer)
	return answer, nil
}

func fetchRange(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	wanted, err := rangeOf(args, 0)
	if err != nil {
		return nil, err
	}
	cids, err := wanted.cids()
	if err != nil {
		return nil, err
	}
	c, err := dialBitswap(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer c.close()
	start, cpu := time.Now(), cpuSeconds()
	incoming, err := c.swap.NewSession(ctx).GetBlocks(ctx, cids)
	if err != nil {
		return nil, err
	}
	n, bytes, perSlice := 0, 0, []int{}
	for block := range incoming {
		n, bytes = n+1, bytes+len(block.RawData())
		at := int(time.Since(start) / o.slice)
		for len(perSlice) <= at {
			perSlice = append(perSlice, 0)
		}
		perSlice[at]++
	}
	seconds := time.Since(start).Seconds()
	answer := result{
		"n": n, "bytes": bytes, "ok": n == wanted.count && bytes == n*wanted.size, "perSecond": float64(n) / seconds,
		"MBps": float64(bytes) / seconds / 1e6, "slices": perSlice, "sliceSeconds": o.slice.Seconds(),
	}
	finishTimed(answer, start, cpu)
	c.received(answer)
	if n < wanted.count {
		return answer, fmt.Errorf("%d of %d blocks came: %w", n, wanted.count, ctx.Err())
	}
	return answer, nil
}

// fetchSlices fetches from each server in turn for a slice of time. What is under way when a slice ends is given up, so
// that the next one has the machine for itself.
func fetchSlices(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	wanted, err := rangeOf(args, 0)
	if err != nil {
		return nil, err
	}
	cids, err := wanted.cids()
	if err != nil {
		return nil, err
	}
	targets := []*peer.AddrInfo{target}
	for _, text := range args[3:] {
		other, err := peer.AddrInfoFromString(text)
		if err != nil {
			return nil, err
		}
		targets = append(targets, other)
	}
	clients, sessions := []*client{}, []fetching.Fetcher{}
	for _, t := range targets {
		c, err := dialBitswap(ctx, o, t)
		if err != nil {
			return nil, err
		}
		defer c.close()
		clients, sessions = append(clients, c), append(sessions, c.swap.NewSession(ctx))
	}
	start, cpu := time.Now(), cpuSeconds()
	rates := make([][]float64, len(clients))
	next := make([]atomic.Int64, len(clients))
	for i := range o.slices {
		turn := i % len(clients)
		began := time.Now()
		n, err := fetchFor(ctx, o, sessions[turn], cids, &next[turn])
		if err != nil {
			return nil, err
		}
		rates[turn] = append(rates[turn], float64(n)/time.Since(began).Seconds())
	}
	answer := result{"n": o.slices, "perSecond": rates, "sliceSeconds": o.slice.Seconds()}
	return finishTimed(answer, start, cpu), nil
}

// fetchFor fetches for o.slice with o.window wants under way, and returns how many blocks came.
func fetchFor(
	ctx context.Context, o *options, session fetching.Fetcher, cids []cid.Cid, next *atomic.Int64,
) (int64, error) {
	sliced, cancel := context.WithTimeout(ctx, o.slice)
	defer cancel()
	var group sync.WaitGroup
	var came atomic.Int64
	var failed atomic.Pointer[error]
	for range o.window {
		group.Go(func() {
			for {
				wanted := cids[int(next.Add(1)-1)%len(cids)]
				_, err := session.GetBlock(sliced, wanted)
				if sliced.Err() != nil {
					return
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				came.Add(1)
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return came.Load(), *err
	}
	return came.Load(), ctx.Err()
}

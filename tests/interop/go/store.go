package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
)

// store holds blocks in memory and adds to them as `ipfs add --cid-version=1` does: raw leaves, balanced, directories
// sharded over boxo's default bound.
type store struct {
	blocks blockstore.Blockstore
	dag    ipld.DAGService
}

func newStore() *store {
	held := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()), blockstore.WriteThrough(true))
	return &store{held, merkledag.NewDAGService(blockservice.New(held, offline.Exchange(held)))}
}

// added counts what one command has added.
type added struct {
	files, bytes int64
}

// storeCommands: what a listener that serves Bitswap does when a line of its stdin says so.
var storeCommands = map[string]func(ctx context.Context, s *store, o *options, args []string) (result, error){
	"add":      addPath,   // PATH: a file or a directory
	"generate": generate,  // SEED SIZE: a file of generated content
	"block":    putSizes,  // SEED SIZE...: single raw blocks of these sizes
	"blocks":   putRange,  // SEED COUNT SIZE: raw blocks, numbered
	"remove":   removeCid, // CID: forget one block
}

func (s *store) run(o *options, words []string) result {
	if len(words) == 0 {
		return result{"error": "usage: COMMAND [ARG]..."}
	}
	action, known := storeCommands[words[0]]
	if !known {
		return result{"cmd": words[0], "error": "no such command"}
	}
	start, cpu := time.Now(), cpuSeconds()
	answer, err := action(context.Background(), s, o, words[1:])
	if answer == nil {
		answer = result{}
	}
	if err != nil {
		answer["error"] = err.Error()
	}
	answer["cmd"] = words[0]
	return finishTimed(answer, start, cpu)
}

func addPath(ctx context.Context, s *store, o *options, args []string) (result, error) {
	if len(args) != 1 {
		return nil, errors.New("one PATH is needed")
	}
	var count added
	node, err := s.addPath(ctx, o, args[0], &count)
	if err != nil {
		return nil, err
	}
	return result{"cid": node.Cid().String(), "bytes": count.bytes, "files": count.files}, nil
}

func (s *store) addPath(ctx context.Context, o *options, path string, count *added) (ipld.Node, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return s.addDirectory(ctx, o, path, count)
	case info.Mode()&os.ModeSymlink != 0:
		return s.addSymlink(ctx, path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file, directory or symlink", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	count.files, count.bytes = count.files+1, count.bytes+info.Size()
	return s.addFile(o, file)
}

func (s *store) addFile(o *options, data io.Reader) (ipld.Node, error) {
	params := helpers.DagBuilderParams{
		Maxlinks: o.links, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix(), Dagserv: s.dag,
	}
	builder, err := params.New(chunk.NewSizeSplitter(data, int64(o.chunkBytes)))
	if err != nil {
		return nil, err
	}
	return balanced.Layout(builder)
}

func (s *store) addSymlink(ctx context.Context, path string) (ipld.Node, error) {
	target, err := os.Readlink(path)
	if err != nil {
		return nil, err
	}
	data, err := unixfs.SymlinkData(target)
	if err != nil {
		return nil, err
	}
	node := merkledag.NodeWithData(data)
	if err := node.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		return nil, err
	}
	return node, s.dag.Add(ctx, node)
}

func (s *store) addDirectory(ctx context.Context, o *options, path string, count *added) (ipld.Node, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	directory, err := uio.NewDirectory(s.dag, uio.WithCidBuilder(merkledag.V1CidPrefix()))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		child, err := s.addPath(ctx, o, filepath.Join(path, entry.Name()), count)
		if err != nil {
			return nil, err
		}
		if err := directory.AddChild(ctx, entry.Name(), child); err != nil {
			return nil, err
		}
	}
	node, err := directory.GetNode()
	if err != nil {
		return nil, err
	}
	return node, s.dag.Add(ctx, node)
}

func generate(_ context.Context, s *store, o *options, args []string) (result, error) {
	if len(args) != 2 {
		return nil, errors.New("SEED SIZE are needed")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return nil, err
	}
	node, err := s.addFile(o, contentOf(args[0], size))
	if err != nil {
		return nil, err
	}
	return result{"cid": node.Cid().String(), "bytes": size, "files": 1}, nil
}

func putSizes(ctx context.Context, s *store, _ *options, args []string) (result, error) {
	if len(args) < 2 {
		return nil, errors.New("SEED SIZE... are needed")
	}
	cids := map[string]string{}
	for _, text := range args[1:] {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, err
		}
		var data bytes.Buffer
		if _, err := io.Copy(&data, contentOf(args[0], size)); err != nil {
			return nil, err
		}
		block, err := rawBlock(data.Bytes())
		if err != nil {
			return nil, err
		}
		if err := s.blocks.Put(ctx, block); err != nil {
			return nil, err
		}
		cids[text] = block.Cid().String()
	}
	return result{"cids": cids}, nil
}

func putRange(ctx context.Context, s *store, _ *options, args []string) (result, error) {
	wanted, err := rangeOf(args, 0)
	if err != nil {
		return nil, err
	}
	for i := range wanted.count {
		block, err := blockAt(wanted.seed, i, wanted.size)
		if err != nil {
			return nil, err
		}
		if err := s.blocks.Put(ctx, block); err != nil {
			return nil, err
		}
	}
	return result{"n": wanted.count, "bytes": wanted.count * wanted.size}, nil
}

func removeCid(ctx context.Context, s *store, _ *options, args []string) (result, error) {
	if len(args) != 1 {
		return nil, errors.New("one CID is needed")
	}
	c, err := cid.Decode(args[0])
	if err != nil {
		return nil, err
	}
	return result{"cid": args[0]}, s.blocks.DeleteBlock(ctx, c)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	fetchers "github.com/ipfs/boxo/exchange"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// steadily is the fetch that goes on while other commands run.
var steadily struct {
	client *client
	cancel context.CancelFunc
	group  sync.WaitGroup
	came   atomic.Int64
	failed atomic.Pointer[error]
}

// steady fetches by GetBlock, so that there is no end of a list at which nothing is under way.
func steady(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	if steadily.client != nil {
		return nil, errors.New("it goes on already")
	}
	wanted, err := rangeOf(args, 0)
	if err != nil {
		return nil, err
	}
	if o.window > wanted.count {
		return nil, errors.New("-window is more than there are blocks")
	}
	cids, err := wanted.cids()
	if err != nil {
		return nil, err
	}
	c, err := dialBitswap(ctx, o, target)
	if err != nil {
		return nil, err
	}
	fetching, cancel := context.WithCancel(context.Background())
	steadily.client, steadily.cancel = c, cancel
	steadily.came.Store(0)
	steadily.failed.Store(nil)
	session := c.swap.NewSession(fetching)
	var next atomic.Int64
	for range o.window {
		steadily.group.Go(func() {
			for {
				err := fetchSized(fetching, session, cids[int(next.Add(1)-1)%len(cids)], wanted.size)
				if fetching.Err() != nil {
					return
				}
				if err != nil {
					steadily.failed.Store(&err)
					return
				}
				steadily.came.Add(1)
			}
		})
	}
	return result{"window": o.window, "blocks": len(cids)}, nil
}

// fetchSized fetches one block, which is to be so large.
func fetchSized(ctx context.Context, session fetchers.Fetcher, wanted cid.Cid, size int) error {
	block, err := session.GetBlock(ctx, wanted)
	if err == nil && len(block.RawData()) != size {
		err = fmt.Errorf("%s: %d bytes came", wanted, len(block.RawData()))
	}
	return err
}

func counted(ctx context.Context, o *options, _ *peer.AddrInfo, _ []string) (result, error) {
	if steadily.client == nil {
		return nil, errors.New("nothing is fetched")
	}
	before, start := steadily.came.Load(), time.Now()
	select {
	case <-time.After(o.slice):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n, seconds := steadily.came.Load()-before, time.Since(start).Seconds()
	if failed := steadily.failed.Load(); failed != nil {
		return nil, *failed
	}
	return result{"n": n, "seconds": seconds, "perSecond": float64(n) / seconds}, nil
}

func rest(_ context.Context, _ *options, _ *peer.AddrInfo, _ []string) (result, error) {
	if steadily.client == nil {
		return nil, errors.New("nothing is fetched")
	}
	steadily.cancel()
	steadily.group.Wait()
	answer := result{"n": steadily.came.Load()}
	steadily.client.received(answer)
	steadily.client.close()
	steadily.client = nil
	return answer, nil
}

// windowed fetches each block once. Of more than 1,024 wants at once a server drops some, and boxo's client says them
// anew only after many seconds: that would be a rate of nothing.
func windowed(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
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
	session := c.swap.NewSession(ctx)
	var next atomic.Int64
	failed, last := inParallel(len(cids), o.window, func() error {
		return fetchSized(ctx, session, cids[next.Add(1)-1], wanted.size)
	})
	seconds := time.Since(start).Seconds()
	bytes := (wanted.count - int(failed)) * wanted.size
	answer := result{"n": len(cids), "failed": failed, "bytes": bytes, "MBps": float64(bytes) / seconds / 1e6}
	finishTimed(answer, start, cpu)
	c.received(answer)
	return answer, last
}

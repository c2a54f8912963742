package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// benchCommands: the same work for every stack; the tests use some of them too.
var benchCommands = map[string]command{
	"ping":         pingN,       // N
	"upload":       upload,      // BYTES over -concurrency streams at once, counted by the peer
	"download":     download,    // BYTES, by perf
	"streams":      streams,     // N, -concurrency at once: 32 bytes echoed on each
	"redial":       redial,      // N: one host connects and disconnects
	"handshakes":   handshakes,  // N, -concurrency at once: each from a host of its own
	"idle":         idle,        // N connections: memory that each costs the listener with -pid
	"open-streams": keepOpen,    // N streams over -connections: the same of each stream
	"close-silent": closeSilent, // how long Close waits for a peer that never answers negotiation
	"stand-by":     standBy,     // SEED COUNT SIZE: as hungry, but nothing is wanted yet
	"crave":        crave,       // those that stand by want
	"forgo":        forgo,       // they want nothing again
	"steady":       steady,      // SEED COUNT SIZE: fetch these blocks over and over, -window at once, until rest
	"counted":      counted,     // what steady fetches in -slice
	"rest":         rest,        // ends it
	"windowed":     windowed,    // SEED COUNT SIZE: fetch these blocks once, -window at once
}

// finishTimed fills in what every measurement has.
func finishTimed(answer result, start time.Time, cpu float64) result {
	answer["seconds"], answer["cpu"] = time.Since(start).Seconds(), cpuSeconds()-cpu
	return answer
}

func connectTimed(ctx context.Context, o *options, target *peer.AddrInfo) (host.Host, result, error) {
	start := time.Now()
	h, err := connect(ctx, o, target)
	return h, result{"connectSeconds": time.Since(start).Seconds()}, err
}

func pingN(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	n, err := number(args, 0, 100)
	if err != nil {
		return nil, err
	}
	h, answer, err := connectTimed(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	pinging, cancel := context.WithCancel(ctx)
	defer cancel()
	start, cpu := time.Now(), cpuSeconds()
	answers := ping.Ping(pinging, h, target.ID)
	for i := 0; i < n; i++ {
		r, ok := <-answers
		if !ok {
			return answer, fmt.Errorf("the pings ended after %d", i)
		}
		if r.Error != nil {
			return answer, r.Error
		}
	}
	answer["n"], answer["perSecond"] = n, float64(n)/time.Since(start).Seconds()
	return finishTimed(answer, start, cpu), nil
}

func upload(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	size, err := number(args, 0, 0)
	if err != nil {
		return nil, err
	}
	h, answer, err := connectTimed(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	start, cpu := time.Now(), cpuSeconds()
	var counted atomic.Uint64
	var next atomic.Int64
	failed, last := inParallel(o.concurrency, o.concurrency, func() error {
		share := size / o.concurrency
		if next.Add(1) == 1 {
			share += size % o.concurrency
		}
		n, err := uploadOne(ctx, h, target.ID, share, make([]byte, o.chunk))
		counted.Add(n)
		return err
	})
	if failed > 0 {
		return answer, last
	}
	answer["bytes"], answer["counted"], answer["ok"] = size, counted.Load(), counted.Load() == uint64(size)
	answer["MBps"] = float64(size) / time.Since(start).Seconds() / 1e6
	return finishTimed(answer, start, cpu), nil
}

// uploadOne writes so many bytes on a stream of their own and returns how many the peer has counted.
func uploadOne(ctx context.Context, h host.Host, p peer.ID, size int, buf []byte) (uint64, error) {
	s, err := open(ctx, h, p, sinkProtocol)
	if err != nil {
		return 0, err
	}
	for left := size; left > 0; left -= len(buf) {
		if _, err := s.Write(buf[:min(left, len(buf))]); err != nil {
			return 0, err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return 0, err
	}
	var counted uint64
	if err := binary.Read(s, binary.BigEndian, &counted); err != nil {
		return 0, err
	}
	return counted, s.Close()
}

func download(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	size, err := number(args, 0, 0)
	if err != nil {
		return nil, err
	}
	h, answer, err := connectTimed(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	start, cpu := time.Now(), cpuSeconds()
	s, err := open(ctx, h, target.ID, perfProtocol)
	if err != nil {
		return answer, err
	}
	if err := binary.Write(s, binary.BigEndian, uint64(size)); err != nil {
		return answer, err
	}
	if err := s.CloseWrite(); err != nil {
		return answer, err
	}
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 1<<18))
	if err != nil {
		return answer, err
	}
	_ = s.Close()
	answer["bytes"], answer["counted"], answer["ok"] = size, got, int(got) == size
	answer["MBps"] = float64(size) / time.Since(start).Seconds() / 1e6
	return finishTimed(answer, start, cpu), nil
}

func echoOnce(ctx context.Context, h host.Host, p peer.ID, back []byte) error {
	s, err := open(ctx, h, p, echoProtocol)
	if err != nil {
		return err
	}
	if _, err = s.Write(make([]byte, 32)); err == nil {
		_, err = io.ReadFull(s, back)
	}
	if err != nil {
		_ = s.Reset()
		return err
	}
	return s.Close()
}

// inParallel runs n pieces of work, so many at once, and tells how many failed and how the last one did.
func inParallel(n, concurrency int, work func() error) (int64, error) {
	var wg sync.WaitGroup
	var next, failed atomic.Int64
	var lock sync.Mutex
	var last error
	for k := 0; k < concurrency; k++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for next.Add(1) <= int64(n) {
				if err := work(); err != nil {
					failed.Add(1)
					lock.Lock()
					last = err
					lock.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	return failed.Load(), last
}

func streams(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	n, err := number(args, 0, 1)
	if err != nil {
		return nil, err
	}
	h, answer, err := connectTimed(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	start, cpu := time.Now(), cpuSeconds()
	failed, last := inParallel(n, o.concurrency, func() error {
		return echoOnce(ctx, h, target.ID, make([]byte, 32))
	})
	answer["n"], answer["failed"] = n, failed
	answer["perSecond"] = float64(n) / time.Since(start).Seconds()
	finishTimed(answer, start, cpu)
	if last != nil {
		answer["lastError"] = last.Error()
	}
	answer["openStreams"] = openStreams(h.Network().ConnsToPeer(target.ID)[0], "", reportWait)
	if o.report {
		answer["report"], err = requestReport(ctx, h, target.ID)
	}
	return answer, err
}

func redial(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	n, err := number(args, 0, 1)
	if err != nil {
		return nil, err
	}
	h, err := newHost(o)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	start, cpu := time.Now(), cpuSeconds()
	for i := 0; i < n; i++ {
		if err := h.Connect(ctx, *target); err != nil {
			return nil, err
		}
		_ = h.Network().ClosePeer(target.ID)
	}
	return finishTimed(result{"n": n, "perSecond": float64(n) / time.Since(start).Seconds()}, start, cpu), nil
}

func handshakes(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	n, err := number(args, 0, 1)
	if err != nil {
		return nil, err
	}
	start, cpu := time.Now(), cpuSeconds()
	failed, last := inParallel(n, o.concurrency, func() error {
		h, err := connect(ctx, o, target)
		if err == nil {
			err = h.Close()
		}
		return err
	})
	answer := result{"n": n, "failed": failed, "perSecond": float64(n) / time.Since(start).Seconds()}
	if last != nil {
		answer["lastError"] = last.Error()
	}
	return finishTimed(answer, start, cpu), nil
}

// anonymousBytes reads the memory of a process that no file is behind.
func anonymousBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, found := strings.Cut(string(text), "RssAnon:")
	if !found {
		return 0, errors.New("no RssAnon in /proc")
	}
	var kibibytes int64
	_, err = fmt.Sscan(after, &kibibytes)
	return kibibytes << 10, err
}

// eachCosts does n things, and a fifth as many before, so that what only the first ones cost is not counted, and tells
// the memory that each of the others costs the listener once it is at rest.
func eachCosts(o *options, n int, once func(k int) error) (result, error) {
	first := n / 5
	var before int64
	for k := 0; k < first+n; k++ {
		if k == first {
			time.Sleep(o.rest)
			var err error
			if before, err = anonymousBytes(o.pid); err != nil {
				return nil, err
			}
		}
		if err := once(k); err != nil {
			return nil, err
		}
	}
	time.Sleep(o.rest)
	after, err := anonymousBytes(o.pid)
	return result{"n": n, "KiBEach": float64(after-before) / float64(n) / 1024}, err
}

func idle(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	n, err := number(args, 0, 1)
	if err != nil {
		return nil, err
	}
	var hosts []host.Host
	defer func() {
		for _, h := range hosts {
			_ = h.Close()
		}
	}()
	return eachCosts(o, n, func(int) error {
		h, err := connect(ctx, o, target)
		if err == nil {
			hosts = append(hosts, h)
		}
		return err
	})
}

func keepOpen(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	n, err := number(args, 0, 1)
	if err != nil {
		return nil, err
	}
	var hosts []host.Host
	for k := 0; k < o.connections; k++ {
		h, err := connect(ctx, o, target)
		if err != nil {
			return nil, err
		}
		defer h.Close()
		hosts = append(hosts, h)
	}
	return eachCosts(o, n, func(k int) error {
		s, err := open(ctx, hosts[k%len(hosts)], target.ID, echoProtocol)
		if err != nil {
			return err
		}
		if _, err = s.Write(make([]byte, 32)); err == nil {
			_, err = io.ReadFull(s, make([]byte, 32))
		}
		return err
	})
}

func closeSilent(ctx context.Context, o *options, target *peer.AddrInfo, _ []string) (result, error) {
	h, answer, err := connectTimed(ctx, o, target)
	if err != nil {
		return nil, err
	}
	if err := h.Peerstore().AddProtocols(target.ID, neverProtocol); err != nil {
		return answer, err
	}
	s, err := h.NewStream(ctx, target.ID, neverProtocol)
	if err != nil {
		return answer, err
	}
	if _, err := s.Write([]byte("x")); err != nil {
		return answer, err
	}
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- s.Close() }()
	select {
	case <-done:
		answer["closeSeconds"] = time.Since(start).Seconds()
		return answer, nil
	case <-time.After(30 * time.Second):
		return answer, errors.New("Close took more than 30 s")
	}
}

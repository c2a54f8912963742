package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const reportWait = 5 * time.Second

// seen is what the handlers noted of one peer.
type seen struct {
	HalfCloseBytes  int    `json:"halfCloseBytes"`
	HalfCloseSHA256 string `json:"halfCloseSha256"`
	ResetCode       *int64 `json:"resetCode"`
	identified      bool
	signedRecord    bool
}

type notes struct {
	lock  sync.Mutex
	peers map[peer.ID]seen
}

func (n *notes) change(p peer.ID, f func(*seen)) {
	n.lock.Lock()
	defer n.lock.Unlock()
	s := n.peers[p]
	f(&s)
	n.peers[p] = s
}

func (n *notes) of(p peer.ID) seen {
	n.lock.Lock()
	defer n.lock.Unlock()
	return n.peers[p]
}

// watchIdentify notes who has been identified, and with a signed record: go-libp2p keeps the addresses, not the record.
func (n *notes) watchIdentify(h host.Host) error {
	events, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return err
	}
	go func() {
		for e := range events.Out() {
			completed := e.(event.EvtPeerIdentificationCompleted)
			n.change(completed.Peer, func(v *seen) {
				v.identified, v.signedRecord = true, completed.SignedPeerRecord != nil
			})
		}
	}()
	return nil
}

func listen(o *options, mode string, addresses []string) error {
	h, err := newHost(o, addresses...)
	if err != nil {
		return err
	}
	if err := handle(h); err != nil {
		return err
	}
	switch mode {
	case "mute":
		h.Network().SetStreamHandler(mute)
	case "stall":
		for _, p := range []protocol.ID{echoProtocol, sinkProtocol, perfProtocol, ping.ID} {
			h.SetStreamHandler(p, stallAfter(o.stopAfter))
		}
	}
	ready := result{}
	take := func(*options, []string) result { return result{"error": "-bitswap is needed for commands"} }
	if o.bitswap || o.file != "" {
		s := newStore()
		startBitswap(h, s)
		take = s.run
		if o.file != "" {
			if ready = s.run(o, []string{"add", o.file}); ready["error"] != nil {
				return fmt.Errorf("%v", ready["error"])
			}
		}
	}
	addrs := []string{}
	for _, a := range h.Addrs() {
		addrs = append(addrs, a.String()+"/p2p/"+h.ID().String())
	}
	if len(addrs) == 0 {
		return errors.New("nothing is listened on")
	}
	ready["addr"], ready["addrs"], ready["peerId"], ready["pid"] = addrs[0], addrs, h.ID().String(), os.Getpid()
	out(ready)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if o.stdin {
		go func() { eachLine(o, take); stop <- syscall.SIGTERM }()
	}
	<-stop
	fmt.Fprintf(os.Stderr, "{\"listenerCpu\":%f}\n", cpuSeconds())
	return nil
}

func handle(h host.Host) error {
	n := &notes{peers: map[peer.ID]seen{}}
	if err := n.watchIdentify(h); err != nil {
		return err
	}
	h.SetStreamHandlerMatch(echoProtocol, func(p protocol.ID) bool {
		return p == echoProtocol || p == echoUnnamed
	}, func(s network.Stream) { finish(s, echo(s)) })
	h.SetStreamHandler(sinkProtocol, func(s network.Stream) { finish(s, sink(s)) })
	h.SetStreamHandler(perfProtocol, func(s network.Stream) { finish(s, perf(s)) })
	h.SetStreamHandler(afterEOFProtocol, func(s network.Stream) {
		data, err := io.ReadAll(s)
		if err == nil {
			_, err = s.Write(data)
		}
		finish(s, err)
	})
	h.SetStreamHandler(halfCloseProtocol, func(s network.Stream) { finish(s, halfCloseFirst(s, n)) })
	h.SetStreamHandler(resetProtocol, func(s network.Stream) {
		var code uint32
		if binary.Read(s, binary.BigEndian, &code) == nil {
			_ = s.ResetWithError(network.StreamErrorCode(code))
		}
	})
	h.SetStreamHandler(awaitResetProtocol, func(s network.Stream) { finish(s, awaitReset(s, n)) })
	h.SetStreamHandler(stallProtocol, stallAfter(0))
	h.SetStreamHandler(pushProtocol, func(s network.Stream) {
		h.SetStreamHandler(pushedProtocol, func(s network.Stream) { finish(s, echo(s)) })
		finish(s, nil)
	})
	h.SetStreamHandler(reportProtocol, func(s network.Stream) { finish(s, report(h, s, n)) })
	return nil
}

func finish(s network.Stream, err error) {
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func echo(s network.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

func sink(s network.Stream) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 1<<18))
	if err != nil {
		return err
	}
	return binary.Write(s, binary.BigEndian, uint64(n))
}

func perf(s network.Stream) error {
	var left uint64
	if err := binary.Read(s, binary.BigEndian, &left); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, buf); err != nil {
		return err
	}
	for left > 0 {
		n, err := s.Write(buf[:min(left, uint64(len(buf)))])
		if err != nil {
			return err
		}
		left -= uint64(n)
	}
	return nil
}

func halfCloseFirst(s network.Stream, n *notes) error {
	if _, err := s.Write([]byte("done")); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	data, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	n.change(s.Conn().RemotePeer(), func(v *seen) {
		v.HalfCloseBytes, v.HalfCloseSHA256 = len(data), digest(data)
	})
	return nil
}

func awaitReset(s network.Stream, n *notes) error {
	one := make([]byte, 1)
	if _, err := io.ReadFull(s, one); err != nil {
		return err
	}
	if _, err := s.Write(one); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, s)
	code := int64(-1)
	if e := new(network.StreamError); errors.As(err, &e) {
		code = int64(e.ErrorCode)
	}
	n.change(s.Conn().RemotePeer(), func(v *seen) { v.ResetCode = &code })
	return err
}

// stallAfter reads so many bytes and then leaves the stream open and unread.
func stallAfter(bytes int64) network.StreamHandler {
	return func(s network.Stream) { _, _ = io.CopyN(io.Discard, s, bytes) }
}

// mute reads what comes, answers nothing, and says when and how it ended.
func mute(s network.Stream) {
	start := time.Now()
	sum := sha256.New()
	head := make([]byte, 0, 256)
	buf := make([]byte, 1<<16)
	total := 0
	for {
		n, err := s.Read(buf)
		total += n
		_, _ = sum.Write(buf[:n])
		head = append(head, buf[:min(n, cap(head)-len(head))]...)
		if err != nil {
			out(result{
				"event": "end", "error": err.Error(), "bytes": total, "head": string(head),
				"sha256": hex.EncodeToString(sum.Sum(nil)), "seconds": time.Since(start).Seconds(),
			})
			return
		}
	}
}

// report answers with one JSON object: what we know of the peer, and its streams that are still open.
func report(h host.Host, s network.Stream, n *notes) error {
	if _, err := io.Copy(io.Discard, s); err != nil {
		return err
	}
	p := s.Conn().RemotePeer()
	for deadline := time.Now().Add(reportWait); !n.of(p).identified && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	open := openStreams(s.Conn(), s.ID(), reportWait)
	noted := n.of(p)
	protocols, err := h.Peerstore().GetProtocols(p)
	if err != nil {
		return err
	}
	agent, _ := h.Peerstore().Get(p, "AgentVersion")
	version, _ := h.Peerstore().Get(p, "ProtocolVersion")
	addrs := []string{}
	for _, a := range h.Peerstore().Addrs(p) {
		addrs = append(addrs, a.String())
	}
	return json.NewEncoder(s).Encode(result{
		"peerId": p.String(),
		"open":   open, "seen": noted, "protocols": protocols, "agent": agent, "protocolVersion": version,
		"signedPeerRecord": noted.signedRecord, "addrs": addrs,
	})
}

// openStreams counts a connection's streams by protocol, once those that are about to end have had the time to.
// A ping stream is kept by whoever opened it, and does not count.
func openStreams(c network.Conn, except string, wait time.Duration) map[string]int {
	deadline := time.Now().Add(wait)
	for {
		open := map[string]int{}
		for _, s := range c.GetStreams() {
			if s.ID() != except && s.Protocol() != ping.ID {
				open[string(s.Protocol())]++
			}
		}
		if len(open) == 0 || time.Now().After(deadline) {
			return open
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

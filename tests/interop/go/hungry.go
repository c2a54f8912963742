package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

var bitswapProtocols = []protocol.ID{
	bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers,
}

// hungryPeer is a host that wants blocks and does not take them.
type hungryPeer struct {
	host   host.Host
	target peer.ID
	cids   []cid.Cid
	wants  network.Stream // what it wants is said here
	opened chan struct{}  // holds an item once a stream of Bitswap was opened to it
	lock   sync.Mutex
	unread []network.Stream // what was opened to it
}

// hungry are those of this process; they stay when the command that made them has answered.
var hungry struct {
	lock    sync.Mutex
	peers   []*hungryPeer
	opened  atomic.Int64
	quiet   context.CancelFunc // ends the saying anew
	talking sync.WaitGroup
}

// makeHungry: with -mode mute they never answer the negotiation of a Bitswap stream, with -mode unread they answer it and
// read nothing; identify they answer either way. With -every they say again and again what they want.
func makeHungry(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	answer, err := standBy(ctx, o, target, args)
	if err != nil {
		return nil, err
	}
	hungry.lock.Lock()
	defer hungry.lock.Unlock()
	return answer, wantAll(o)
}

// standBy is as makeHungry, but that they want nothing yet: crave makes them, and forgo ends that again.
func standBy(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	wanted, err := rangeOf(args, 0)
	if err != nil {
		return nil, err
	}
	if o.mode != "mute" && o.mode != "unread" {
		return nil, errors.New("-mode is mute or unread")
	}
	cids, err := wanted.cids()
	if err != nil {
		return nil, err
	}
	hungry.lock.Lock()
	defer hungry.lock.Unlock()
	for range o.peers {
		h, err := newHost(o)
		if err != nil {
			return nil, err
		}
		p := &hungryPeer{host: h, target: target.ID, cids: cids, opened: make(chan struct{}, 1)}
		hungry.peers = append(hungry.peers, p)
		for _, id := range bitswapProtocols {
			h.SetStreamHandler(id, p.leave)
		}
		if o.mode == "mute" {
			h.Network().SetStreamHandler(p.answerAllBut)
		}
		if err := h.Connect(ctx, *target); err != nil {
			return nil, err
		}
		if p.wants, err = h.NewStream(ctx, target.ID, bitswapProtocols...); err != nil {
			return nil, err
		}
		// An empty wantlist: the stream is negotiated, and nothing is wanted.
		if err := say(p.wants, nil); err != nil {
			return nil, err
		}
		go readOn(p.wants)
	}
	return result{"peers": o.peers, "wants": len(cids), "mode": o.mode}, nil
}

// crave makes those that stand by want, with -every again and again, and answers once a stream was opened to each.
func crave(ctx context.Context, o *options, _ *peer.AddrInfo, _ []string) (result, error) {
	hungry.lock.Lock()
	defer hungry.lock.Unlock()
	for _, p := range hungry.peers {
		select {
		case <-p.opened:
		default:
		}
	}
	if err := wantAll(o); err != nil {
		return nil, err
	}
	for i, p := range hungry.peers {
		select {
		case <-p.opened:
		case <-ctx.Done():
			return nil, fmt.Errorf("no stream was opened to peer %d of %d: %w", i+1, len(hungry.peers), ctx.Err())
		}
	}
	return result{"peers": len(hungry.peers)}, nil
}

// forgo makes them want nothing, and resets what was opened to them; it tells how many streams that were.
func forgo(_ context.Context, _ *options, _ *peer.AddrInfo, _ []string) (result, error) {
	hungry.lock.Lock()
	defer hungry.lock.Unlock()
	hush()
	streams := 0
	for _, p := range hungry.peers {
		message := bsmsg.New(false)
		for _, c := range p.cids {
			message.Cancel(c)
		}
		// Before the resets: what a reset takes away is due again only while it is wanted.
		if err := message.ToNetV1(p.wants); err != nil {
			return nil, err
		}
		streams += p.resetAll()
	}
	return result{"peers": len(hungry.peers), "streams": streams}, nil
}

// satiate ends the hungry hosts and tells how many streams of Bitswap were opened to them.
func satiate(_ context.Context, _ *options, _ *peer.AddrInfo, _ []string) (result, error) {
	hungry.lock.Lock()
	defer hungry.lock.Unlock()
	answer := result{"peers": len(hungry.peers), "opened": hungry.opened.Load()}
	hush()
	for _, p := range hungry.peers {
		_ = p.host.Close()
	}
	hungry.peers = nil
	hungry.opened.Store(0)
	return answer, nil
}

// wantAll says for all of them what they want. The lock is held.
func wantAll(o *options) error {
	for _, p := range hungry.peers {
		if err := say(p.wants, p.cids); err != nil {
			return err
		}
	}
	hush()
	staying, cancel := context.WithCancel(context.Background())
	hungry.quiet = cancel
	if o.every > 0 {
		for _, p := range hungry.peers {
			hungry.talking.Go(func() { sayAgain(staying, p, o.every) })
		}
	}
	return nil
}

// hush ends the saying anew. The lock is held.
func hush() {
	if hungry.quiet != nil {
		hungry.quiet()
		hungry.quiet = nil
	}
	hungry.talking.Wait()
}

func say(s network.Stream, cids []cid.Cid) error {
	message := bsmsg.New(true)
	for i, c := range cids {
		message.AddEntry(c, int32(len(cids)-i), pb.Message_Wantlist_Block, true)
	}
	return message.ToNetV1(s)
}

func sayAgain(ctx context.Context, p *hungryPeer, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		if s, err := p.host.NewStream(ctx, p.target, bitswapProtocols...); err == nil {
			_ = say(s, p.cids)
			_ = s.CloseWrite()
			go readOn(s)
		}
	}
}

// readOn reads a stream of ours to its end: nothing is due on it but the answer to our negotiation.
func readOn(s network.Stream) { _, _ = io.Copy(io.Discard, s) }

// leave keeps a stream unread.
func (p *hungryPeer) leave(s network.Stream) {
	p.lock.Lock()
	p.unread = append(p.unread, s)
	p.lock.Unlock()
	hungry.opened.Add(1)
	select {
	case p.opened <- struct{}{}:
	default:
	}
}

// resetAll resets what was left unread and returns how many streams that were.
func (p *hungryPeer) resetAll() int {
	p.lock.Lock()
	defer p.lock.Unlock()
	n := len(p.unread)
	for _, s := range p.unread {
		_ = s.Reset()
	}
	p.unread = nil
	return n
}

// answerAllBut looks at the protocol that a stream is opened with. Bitswap gets no answer; others are negotiated.
func (p *hungryPeer) answerAllBut(s network.Stream) {
	var head bytes.Buffer
	reader := io.TeeReader(s, &head)
	var proposed string
	for range 2 { // the header, and the first proposal, which comes with it
		line, err := readLine(reader)
		if err != nil {
			_ = s.Reset()
			return
		}
		proposed = line
	}
	if strings.HasPrefix(proposed, string(bsnet.ProtocolBitswapNoVers)) {
		p.leave(s)
		return
	}
	whole := &replayed{s, io.MultiReader(&head, s)}
	id, handler, err := p.host.Mux().Negotiate(whole)
	if err == nil {
		err = s.SetProtocol(id)
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = handler(id, whole)
}

// replayed is a stream some of which has been read already.
type replayed struct {
	network.Stream
	from io.Reader
}

func (r *replayed) Read(buf []byte) (int, error) { return r.from.Read(buf) }

// readLine reads one message of multistream-select.
func readLine(r io.Reader) (string, error) {
	size, err := binary.ReadUvarint(oneByOne{r})
	if err != nil {
		return "", err
	}
	if size == 0 || size > 1024 {
		return "", fmt.Errorf("a message of %d bytes", size)
	}
	line := make([]byte, size)
	_, err = io.ReadFull(r, line)
	return string(line[:size-1]), err
}

type oneByOne struct{ io.Reader }

func (r oneByOne) ReadByte() (byte, error) {
	var one [1]byte
	_, err := io.ReadFull(r, one[:])
	return one[0], err
}

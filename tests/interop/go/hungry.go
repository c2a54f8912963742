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

// hungry are hosts that want blocks and do not take them; they stay when the command that made them has answered.
var hungry struct {
	lock   sync.Mutex
	hosts  []host.Host
	cancel []context.CancelFunc
	opened atomic.Int64
}

// makeHungry: with -mode mute they never answer the negotiation of a Bitswap stream, with -mode unread they answer it and
// read nothing; identify they answer either way. With -every they say again and again what they want.
func makeHungry(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
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
	staying, cancel := context.WithCancel(context.Background())
	hungry.lock.Lock()
	defer hungry.lock.Unlock()
	hungry.cancel = append(hungry.cancel, cancel)
	for range o.peers {
		h, err := newHost(o)
		if err != nil {
			return nil, err
		}
		hungry.hosts = append(hungry.hosts, h)
		for _, id := range bitswapProtocols {
			h.SetStreamHandler(id, func(network.Stream) { hungry.opened.Add(1) })
		}
		if o.mode == "mute" {
			h.Network().SetStreamHandler(func(s network.Stream) { answerAllBut(h, s) })
		}
		if err := h.Connect(ctx, *target); err != nil {
			return nil, err
		}
		s, err := h.NewStream(ctx, target.ID, bitswapProtocols...)
		if err != nil {
			return nil, err
		}
		if err := say(s, cids); err != nil {
			return nil, err
		}
		go readOn(s)
		if o.every > 0 {
			go sayAgain(staying, h, target.ID, cids, o.every)
		}
	}
	return result{"peers": o.peers, "wants": len(cids), "mode": o.mode}, nil
}

// satiate ends the hungry hosts and tells how many streams of Bitswap were opened to them.
func satiate(_ context.Context, _ *options, _ *peer.AddrInfo, _ []string) (result, error) {
	hungry.lock.Lock()
	defer hungry.lock.Unlock()
	answer := result{"peers": len(hungry.hosts), "opened": hungry.opened.Load()}
	for _, cancel := range hungry.cancel {
		cancel()
	}
	for _, h := range hungry.hosts {
		_ = h.Close()
	}
	hungry.hosts, hungry.cancel = nil, nil
	hungry.opened.Store(0)
	return answer, nil
}

func say(s network.Stream, cids []cid.Cid) error {
	message := bsmsg.New(true)
	for i, c := range cids {
		message.AddEntry(c, int32(len(cids)-i), pb.Message_Wantlist_Block, true)
	}
	return message.ToNetV1(s)
}

func sayAgain(ctx context.Context, h host.Host, p peer.ID, cids []cid.Cid, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		if s, err := h.NewStream(ctx, p, bitswapProtocols...); err == nil {
			_ = say(s, cids)
			_ = s.CloseWrite()
			go readOn(s)
		}
	}
}

// readOn reads a stream of ours to its end: nothing is due on it but the answer to our negotiation.
func readOn(s network.Stream) { _, _ = io.Copy(io.Discard, s) }

// answerAllBut looks at the protocol that a stream is opened with. Bitswap gets no answer; others are negotiated.
func answerAllBut(h host.Host, s network.Stream) {
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
		hungry.opened.Add(1)
		return
	}
	whole := &replayed{s, io.MultiReader(&head, s)}
	id, handler, err := h.Mux().Negotiate(whole)
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

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const holdForPush = 10 * time.Second

// commands: what the tests ask of a dialler.
var commands = map[string]command{
	"info":       info,      // what identify told us
	"echo":       echoOf,    // SIZE [lazy]: byte-exact; lazy opens before anything is known of the peer's protocols
	"half-close": halfClose, // [SIZE]: both orders of ending
	"reset":      reset,     // CODE: we reset
	"reset-by":   resetBy,   // CODE: the peer resets
	"na":         na,        // eager and lazy opening of a protocol that the peer does not speak
	"push":       push,      // our protocols change; stays until the peer disconnects
	"report":     askReport, // what the peer knows of us
}

func number(args []string, at int, otherwise int) (int, error) {
	if len(args) <= at {
		return otherwise, nil
	}
	return strconv.Atoi(args[at])
}

func connect(ctx context.Context, o *options, target *peer.AddrInfo) (host.Host, error) {
	h, err := newHost(o)
	if err != nil {
		return nil, err
	}
	if err := h.Connect(ctx, *target); err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}

func open(ctx context.Context, h host.Host, p peer.ID, id protocol.ID) (network.Stream, error) {
	s, err := h.NewStream(ctx, p, id)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = s.SetDeadline(deadline)
	}
	return s, err
}

// isLazy tells whether a stream was opened without waiting for the peer's answer.
func isLazy(s network.Stream) bool { return strings.Contains(fmt.Sprintf("%T", s), "streamWrapper") }

func info(ctx context.Context, o *options, target *peer.AddrInfo, _ []string) (result, error) {
	h, err := newHost(o)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	events, err := h.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed),
	})
	if err != nil {
		return nil, err
	}
	defer events.Close()
	if err := h.Connect(ctx, *target); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case e := <-events.Out():
		switch e := e.(type) {
		case event.EvtPeerIdentificationFailed:
			return nil, e.Reason
		case event.EvtPeerIdentificationCompleted:
			state := e.Conn.ConnState()
			observed := ""
			if e.ObservedAddr != nil {
				observed = e.ObservedAddr.String()
			}
			addrs := []string{}
			for _, a := range e.ListenAddrs {
				addrs = append(addrs, a.String())
			}
			return result{
				"peerId": h.ID().String(),
				"agent":  e.AgentVersion, "protocolVersion": e.ProtocolVersion, "protocols": e.Protocols,
				"listenAddrs": addrs, "observedAddr": observed, "signedPeerRecord": e.SignedPeerRecord != nil,
				"localAddr":  e.Conn.LocalMultiaddr().String(),
				"encryption": state.Security, "muxer": state.StreamMultiplexer,
				"earlyMuxer": state.UsedEarlyMuxerNegotiation,
			}, nil
		}
	}
	return nil, errors.New("an event of another kind")
}

func echoOf(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	size, err := number(args, 0, 32)
	if err != nil {
		return nil, err
	}
	h, err := connect(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if len(args) > 1 && args[1] == "lazy" {
		if err := h.Peerstore().AddProtocols(target.ID, echoProtocol); err != nil {
			return nil, err
		}
	}
	s, err := open(ctx, h, target.ID, echoProtocol)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	_, _ = rand.Read(data)
	back, err := exchange(s, data, o.chunk)
	if err != nil {
		return nil, err
	}
	return result{
		"peerId": h.ID().String(),
		"lazy":   isLazy(s), "bytes": len(back), "sha256": digest(back), "ok": bytes.Equal(data, back),
		"openStreams": openStreams(s.Conn(), "", reportWait),
	}, nil
}

// exchange writes all data while it reads, ends its side, and returns what came until the peer ended.
func exchange(s network.Stream, data []byte, chunk int) ([]byte, error) {
	wrote := make(chan error, 1)
	go func() {
		for left := data; len(left) > 0; {
			n, err := s.Write(left[:min(len(left), chunk)])
			if err != nil {
				wrote <- err
				return
			}
			left = left[n:]
		}
		wrote <- s.CloseWrite()
	}()
	back, err := io.ReadAll(s)
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	if err := <-wrote; err != nil {
		return nil, err
	}
	return back, s.Close()
}

func halfClose(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	size, err := number(args, 0, 100_000)
	if err != nil {
		return nil, err
	}
	h, err := connect(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	data := make([]byte, size)
	_, _ = rand.Read(data)
	s, err := open(ctx, h, target.ID, afterEOFProtocol)
	if err != nil {
		return nil, err
	}
	back, err := exchange(s, data, o.chunk)
	if err != nil {
		return nil, err
	}
	answer := result{"ok": bytes.Equal(data, back), "bytes": size, "sha256": digest(data)}
	if s, err = open(ctx, h, target.ID, halfCloseProtocol); err != nil {
		return answer, err
	}
	if _, err = s.Write(data[:1]); err != nil {
		return answer, err
	}
	first, err := io.ReadAll(s)
	if err != nil {
		return answer, err
	}
	answer["first"] = string(first)
	if _, err = s.Write(data[1:]); err != nil {
		return answer, err
	}
	if err = s.Close(); err != nil {
		return answer, err
	}
	answer["openStreams"] = openStreams(s.Conn(), "", reportWait)
	// What was written is read by the peer after we are done: ask until it has said so.
	report, err := requestReport(ctx, h, target.ID)
	if err == nil {
		answer["report"] = report
	}
	return answer, nil
}

func reset(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	code, err := number(args, 0, 0)
	if err != nil {
		return nil, err
	}
	h, err := connect(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	s, err := open(ctx, h, target.ID, awaitResetProtocol)
	if err != nil {
		return nil, err
	}
	one := []byte("r")
	if _, err := s.Write(one); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(s, one); err != nil {
		return nil, err
	}
	if err := s.ResetWithError(network.StreamErrorCode(code)); err != nil {
		return nil, err
	}
	open := openStreams(s.Conn(), "", reportWait)
	// The connection's end must not overtake the reset.
	report, _ := requestReport(ctx, h, target.ID)
	return result{"code": code, "openStreams": open, "report": report}, nil
}

func resetBy(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error) {
	code, err := number(args, 0, 0)
	if err != nil {
		return nil, err
	}
	h, err := connect(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	s, err := open(ctx, h, target.ID, resetProtocol)
	if err != nil {
		return nil, err
	}
	if err := binary.Write(s, binary.BigEndian, uint32(code)); err != nil {
		return nil, err
	}
	_, err = io.ReadAll(s)
	answer := result{"asked": code}
	if e := new(network.StreamError); errors.As(err, &e) {
		answer["code"], answer["remote"] = int64(e.ErrorCode), e.Remote
	}
	if err != nil {
		answer["reset"] = err.Error()
	}
	_ = s.Reset()
	answer["openStreams"] = openStreams(s.Conn(), "", reportWait)
	return answer, nil
}

func na(ctx context.Context, o *options, target *peer.AddrInfo, _ []string) (result, error) {
	h, err := connect(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	answer := result{"eager": "", "lazy": ""}
	if s, err := open(ctx, h, target.ID, neverProtocol); err != nil {
		answer["eager"] = err.Error()
	} else {
		_ = s.Reset()
	}
	if err := h.Peerstore().AddProtocols(target.ID, neverProtocol); err != nil {
		return answer, err
	}
	s, err := open(ctx, h, target.ID, neverProtocol)
	if err != nil {
		return answer, err
	}
	answer["wasLazy"] = isLazy(s)
	if _, err = s.Write([]byte("x")); err == nil {
		_, err = io.ReadAll(s)
	}
	if err != nil {
		answer["lazy"] = err.Error()
	}
	_ = s.Reset()
	// The connection must have survived both refusals.
	s, err = open(ctx, h, target.ID, echoProtocol)
	if err != nil {
		return answer, err
	}
	back, err := exchange(s, []byte("still here"), o.chunk)
	answer["after"] = string(back)
	return answer, err
}

func push(ctx context.Context, o *options, target *peer.AddrInfo, _ []string) (result, error) {
	h, err := connect(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	gone := make(chan struct{})
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { close(gone) }})
	s, err := open(ctx, h, target.ID, echoProtocol) // waits for identify
	if err != nil {
		return nil, err
	}
	_ = s.Reset()
	h.SetStreamHandler(pushedProtocol, func(s network.Stream) { finish(s, echo(s)) })
	select {
	case <-gone:
		return result{"disconnected": true}, nil
	case <-time.After(holdForPush):
	case <-ctx.Done():
	}
	return result{"disconnected": false}, nil
}

func requestReport(ctx context.Context, h host.Host, p peer.ID) (json.RawMessage, error) {
	s, err := open(ctx, h, p, reportProtocol)
	if err != nil {
		return nil, err
	}
	text, err := exchange(s, nil, 1)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(text), nil
}

func askReport(ctx context.Context, o *options, target *peer.AddrInfo, _ []string) (result, error) {
	h, err := connect(ctx, o, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	report, err := requestReport(ctx, h, target.ID)
	return result{"report": report}, err
}

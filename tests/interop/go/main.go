// Command peer is the go-libp2p side of the interoperability tests and of the comparisons.
//
//	peer [flags] listen|mute|stall ADDR...   serve, print one JSON line, end on SIGTERM or when stdin closes with -stdin;
//	                                         with -bitswap, run the commands of store.go from stdin, one JSON array a line
//	peer [flags] COMMAND ADDR [ARG]...       run one command, print one JSON line
//	peer [flags] session                     run commands from stdin, one JSON array a line, one JSON line back for each
//
// commands.go, bench.go and bitswap.go list the commands.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

const (
	echoProtocol       = "/echo/1.0.0"        // sends back what it reads, as it comes
	echoUnnamed        = "/echo/1.1.0"        // the same; identify does not name it
	sinkProtocol       = "/sink/1.0.0"        // reads to the end, answers the count as 8 bytes
	perfProtocol       = "/perf/1.0.0"        // libp2p's perf
	afterEOFProtocol   = "/after-eof/1.0.0"   // reads to the end, then sends it all back
	halfCloseProtocol  = "/half-close/1.0.0"  // sends "done", ends its own side, then reads on
	resetProtocol      = "/reset/1.0.0"       // reads a code of 4 bytes and resets with it
	awaitResetProtocol = "/await-reset/1.0.0" // answers one byte with one, then notes the code of the reset
	stallProtocol      = "/stall/1.0.0"       // negotiates and never reads
	pushProtocol       = "/push/1.0.0"        // changes our protocols, so that identify-push goes out
	pushedProtocol     = "/pushed/1.0.0"      // the protocol that is then new
	reportProtocol     = "/report/1.0.0"      // answers with what we know of the one who asks
	neverProtocol      = "/never/1.0.0"       // nobody speaks it
)

type result map[string]any

type options struct {
	security    string
	keyType     string
	concurrency int
	chunk       int
	pid         int
	connections int
	rest        time.Duration
	stopAfter   int64
	timeout     time.Duration
	stdin       bool
	report      bool

	bitswap    bool
	file       string
	chunkBytes int
	links      int
	graph      bool
	slice      time.Duration
	slices     int
	window     int
	mode       string
	peers      int
	every      time.Duration
}

var outLock sync.Mutex

func out(v result) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	outLock.Lock()
	defer outLock.Unlock()
	fmt.Println(string(line))
}

func cpuSeconds() float64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

func newHost(o *options, listen ...string) (host.Host, error) {
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, err
	}
	security := libp2p.Security(noise.ID, noise.New)
	if o.security == "tls" {
		security = libp2p.Security(tls.ID, tls.New)
	}
	addresses := libp2p.NoListenAddrs
	if len(listen) > 0 {
		addresses = libp2p.ListenAddrStrings(listen...)
	}
	key, err := newKey(o.keyType)
	if err != nil {
		return nil, err
	}
	return libp2p.New(security, libp2p.ResourceManager(manager), addresses, libp2p.Identity(key))
}

type command func(ctx context.Context, o *options, target *peer.AddrInfo, args []string) (result, error)

func run(o *options, words []string) result {
	if len(words) < 2 {
		return result{"error": "usage: COMMAND ADDR [ARG]..."}
	}
	name := words[0]
	action, known := commands[name]
	if !known {
		action, known = benchCommands[name]
	}
	if !known {
		action, known = bitswapCommands[name]
	}
	if !known {
		return result{"cmd": name, "error": "no such command"}
	}
	target, err := peer.AddrInfoFromString(words[1])
	if err != nil {
		return result{"cmd": name, "error": err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	answer, err := action(ctx, o, target, words[2:])
	if answer == nil {
		answer = result{}
	}
	if err != nil {
		answer["error"] = err.Error()
	}
	answer["cmd"], answer["go"] = name, runtime.Version()
	return answer
}

// eachLine runs the commands of stdin until it closes.
func eachLine(o *options, run func(o *options, words []string) result) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24) // a command may name thousands of CIDs
	for lines.Scan() {
		var words []string
		if err := json.Unmarshal(lines.Bytes(), &words); err != nil {
			out(result{"error": err.Error()})
			continue
		}
		// Flags may precede the words of one command: they hold for that command only.
		once := *o
		set := flag.NewFlagSet("line", flag.ContinueOnError)
		declare(set, &once)
		if err := set.Parse(words); err != nil {
			out(result{"error": err.Error()})
			continue
		}
		out(run(&once, set.Args()))
	}
}

func declare(set *flag.FlagSet, o *options) {
	set.StringVar(&o.security, "security", "noise", "noise or tls")
	set.StringVar(&o.keyType, "key-type", "ed25519", "of the host's key: ed25519, rsa, secp256k1 or ecdsa")
	set.IntVar(&o.concurrency, "concurrency", 1, "streams or handshakes at once")
	set.IntVar(&o.chunk, "chunk", 1<<16, "bytes per write")
	set.IntVar(&o.pid, "pid", 0, "idle, open-streams: the listener's process, whose memory is read")
	set.IntVar(&o.connections, "connections", 10, "open-streams: over so many")
	set.DurationVar(&o.rest, "rest", 12*time.Second, "idle, open-streams: until what came before is forgotten")
	set.Int64Var(&o.stopAfter, "stop-after", 0, "stall: read so many bytes first")
	set.DurationVar(&o.timeout, "timeout", 60*time.Second, "for one command")
	set.BoolVar(&o.report, "report", false, "streams: also say what the peer sees left open")
	set.BoolVar(&o.stdin, "stdin", false, "a listener ends when stdin closes")
	set.BoolVar(&o.bitswap, "bitswap", false, "listen: serve blocks by Bitswap, which commands from stdin add")
	set.StringVar(&o.file, "file", "", "listen: add this file or directory at once, and name its CID; as -bitswap")
	set.IntVar(&o.chunkBytes, "chunk-bytes", 1<<18, "add, generate: bytes of a file's block")
	set.IntVar(&o.links, "links", 174, "add, generate: links of a file's node")
	set.BoolVar(&o.graph, "graph", false, "get: fetch all blocks first, many at once, and read them then")
	set.DurationVar(&o.slice, "slice", 500*time.Millisecond, "blocks, slices: what is counted together")
	set.IntVar(&o.slices, "slices", 61, "slices: how many")
	set.IntVar(&o.window, "window", 128, "slices: blocks wanted at once")
	set.StringVar(&o.mode, "mode", "", "hungry: mute or unread")
	set.IntVar(&o.peers, "peers", 16, "hungry: how many")
	set.DurationVar(&o.every, "every", 0, "hungry: say anew what is wanted, so often")
}

func main() {
	o := &options{}
	declare(flag.CommandLine, o)
	flag.Parse()
	words := flag.Args()
	var err error
	switch {
	case len(words) == 0:
		err = errors.New("usage: peer [flags] listen|mute|stall|session|COMMAND")
	case words[0] == "listen" || words[0] == "mute" || words[0] == "stall":
		err = listen(o, words[0], words[1:])
	case words[0] == "session":
		eachLine(o, run)
	default:
		answer := run(o, words)
		out(answer)
		if _, failed := answer["error"]; failed {
			os.Exit(1)
		}
	}
	if err != nil {
		out(result{"error": err.Error()})
		os.Exit(1)
	}
}

package pep

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// recorder is a TCP proxy that keeps what the client sends.
type recorder struct {
	net.Listener
	to   string
	work sync.WaitGroup

	mu    sync.Mutex
	sent  bytes.Buffer
	conns []net.Conn
}

// record listens before addr until the test ends.
func record(t *testing.T, addr string) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{Listener: ln, to: addr}
	r.work.Go(r.serve)
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.work.Wait()
	})
	return r
}

func (r *recorder) serve() {
	for {
		client, err := r.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.to)
		if err != nil {
			client.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, client, server)
		r.mu.Unlock()
		r.work.Go(func() {
			_, _ = io.Copy(server, io.TeeReader(client, r))
			server.Close()
			client.Close()
		})
		r.work.Go(func() {
			_, _ = io.Copy(client, server)
			client.Close()
			server.Close()
		})
	}
}

// Write keeps what the client sent.
func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent.Write(b)
}

// wire returns what the client sent.
func (r *recorder) wire() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.sent.Bytes())
}

func utf16LE(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// forms are the ways in which a text could stand on a wire: plain, as Windows
// writes it, and both in base64 at each of the three offsets.
func forms(text string) [][]byte {
	out := [][]byte{[]byte(text), utf16LE(text)}
	for _, plain := range [][]byte{[]byte(text), utf16LE(text)} {
		for offset := range 3 {
			code := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), plain...))
			out = append(out, []byte(code)[(offset*4+2)/3:len(code)-1]) // what does not depend on the neighbours
		}
	}
	return out
}

// leaks returns the texts that stand in data in some form.
func leaks(data []byte, texts ...string) (found []string) {
	for _, text := range texts {
		for i, form := range forms(text) {
			if bytes.Contains(data, form) {
				found = append(found, fmt.Sprintf("%q in form %d", text, i))
			}
		}
	}
	return found
}

func TestLeaksAreFound(t *testing.T) {
	for _, text := range []string{"<s:Envelope", "correct horse"} {
		for offset := range 5 {
			filler := strings.Repeat("x", offset)
			for name, wire := range map[string]string{
				"plain":            filler + text + "y",
				"UTF-16":           filler + string(utf16LE(text)) + "y",
				"base64":           base64.StdEncoding.EncodeToString([]byte(filler + text + "y")),
				"UTF-16 in base64": base64.StdEncoding.EncodeToString(append([]byte(filler), utf16LE(text+"y")...)),
			} {
				if len(leaks([]byte(wire), text)) == 0 {
					t.Errorf("%s of %q behind %d bytes is not found", name, text, offset)
				}
				if found := leaks([]byte(wire), "other text"); found != nil {
					t.Errorf("%s: found %v", name, found)
				}
			}
		}
	}
}

const hostilePassword = "correct horse battery"

// secrets are what must not be on the wire in clear.
var secrets = []string{hostilePassword, "<s:Envelope", "s:Envelope", "Envelope", "CloudAdmin:", "creationXml",
	"Get-AzureStackStampInformation", "New-RegistrationToken", "New-AzureStackActivation", "Set-RegistrationKeyPair", "CREATE_PIPELINE", "<Obj"}

// impatient are the limits of a client where it is they that must end the call;
// elsewhere the endpoint is refused for what it sends, however slow the machine is.
var impatient = Limits{Operation: 200 * time.Millisecond, Slack: 300 * time.Millisecond, Opening: 2 * time.Second, Command: 2 * time.Second, Activation: 2 * time.Second, Grace: 500 * time.Millisecond}

// hostile are the modes, each with the moment at which it is worst: on the login,
// on the first envelope, on replies, on the output of a command.
var hostile = []struct {
	name  string
	want  string // of the error; where it is about time, the client is impatient
	fault peptest.Fault
}{
	{name: "no SEAL", want: "does not promise sealing", fault: peptest.Fault{Kind: peptest.NoSeal}},
	{name: "no SIGN", want: "does not promise sealing", fault: peptest.Fault{Kind: peptest.NoSign}},
	{name: "no KEY_EXCH", want: "does not promise sealing", fault: peptest.Fault{Kind: peptest.NoKeyExch}},
	{name: "no 128", want: "does not promise sealing", fault: peptest.Fault{Kind: peptest.No128}},
	{name: "no extended session security", want: "does not promise sealing", fault: peptest.Fault{Kind: peptest.NoESS}},
	{name: "Basic only", want: "offers no NTLM", fault: peptest.Fault{Kind: peptest.BasicOnly}},
	{name: "Basic only after the challenge", want: "refuses user", fault: peptest.Fault{Kind: peptest.BasicOnly, Action: "Authenticate"}},
	{name: "401 for ever", want: "refuses user", fault: peptest.Fault{Kind: peptest.Unauthorized}},
	{name: "503 HTML at the login", want: "the login with HTTP status 503", fault: peptest.Fault{Kind: peptest.HTML}},
	{name: "503 HTML to an envelope", want: "an envelope with HTTP status 503", fault: peptest.Fault{Kind: peptest.HTML, Action: "Create"}},
	{name: "503 HTML to a Receive", want: "an envelope with HTTP status 503", fault: peptest.Fault{Kind: peptest.HTML, Action: "Receive", After: 3}},
	{name: "redirect at the login", want: "redirects", fault: peptest.Fault{Kind: peptest.Redirect}},
	{name: "redirect of an envelope", want: "redirects", fault: peptest.Fault{Kind: peptest.Redirect, Action: "Command"}},
	{name: "black hole at the login", want: "did not answer within", fault: peptest.Fault{Kind: peptest.BlackHole}},
	{name: "black hole for an envelope", want: "did not answer within", fault: peptest.Fault{Kind: peptest.BlackHole, Action: "Command"}},
	{name: "clear reply", want: "not sealed", fault: peptest.Fault{Kind: peptest.Clear}},
	{name: "clear reply to a Receive", want: "not sealed", fault: peptest.Fault{Kind: peptest.Clear, Action: "Receive", After: 3}},
	{name: "garbage", want: "sealed reply is damaged", fault: peptest.Fault{Kind: peptest.Garbage}},
	{name: "garbage to a Receive", want: "sealed reply is damaged", fault: peptest.Fault{Kind: peptest.Garbage, Action: "Receive", After: 3}},
	{name: "wrong seal", want: "signature of a reply does not fit", fault: peptest.Fault{Kind: peptest.BadSeal, Action: "Receive"}},
	{name: "signature of 4 GiB", want: "its signature is not of 16 bytes", fault: peptest.Fault{Kind: peptest.HugeLength}},
	{name: "OriginalContent of 4 GiB", want: "out of range", fault: peptest.Fault{Kind: peptest.HugeOriginal}},
	{name: "fragment of 4 GiB at the opening", want: "its length is 4294967295 bytes", fault: peptest.Fault{Kind: peptest.HugeFrag}},
	{name: "fragment of 4 GiB of a command", want: "its length is 4294967295 bytes", fault: peptest.Fault{Kind: peptest.HugeFrag, After: 3}},
	{name: "deep SOAP", want: "nests deeper", fault: peptest.Fault{Kind: peptest.DeepSOAP}},
	{name: "deep SOAP to a Receive", want: "nests deeper", fault: peptest.Fault{Kind: peptest.DeepSOAP, Action: "Receive", After: 3}},
	{name: "deep CLIXML at the opening", want: "nested over", fault: peptest.Fault{Kind: peptest.DeepNest}},
	{name: "deep CLIXML of a command", want: "nested over", fault: peptest.Fault{Kind: peptest.DeepNest, After: 3}},
	{name: "wrong RelatesTo", want: "relates to message", fault: peptest.Fault{Kind: peptest.WrongRelatesTo}},
	{name: "endless body at the login", want: "a reply has more than", fault: peptest.Fault{Kind: peptest.Endless, Action: "Negotiate"}},
	{name: "endless body", want: "a reply has more than", fault: peptest.Fault{Kind: peptest.Endless, Action: "Create"}},
	{name: "endless header at the login", want: "the header of a reply has more than", fault: peptest.Fault{Kind: peptest.EndlessHeader, Action: "Negotiate"}},
	{name: "endless header", want: "the header of a reply has more than", fault: peptest.Fault{Kind: peptest.EndlessHeader, Action: "Receive"}},
	{name: "slow header at the login", want: "did not answer within", fault: peptest.Fault{Kind: peptest.SlowHeader, Action: "Negotiate"}},
	{name: "slow header", want: "did not come to its end within", fault: peptest.Fault{Kind: peptest.SlowHeader, Action: "Receive"}},
	{name: "slow body at the login", want: "did not answer within", fault: peptest.Fault{Kind: peptest.SlowBody, Action: "Authenticate"}},
	{name: "slow body", want: "did not come to its end within", fault: peptest.Fault{Kind: peptest.SlowBody, Action: "Receive", After: 3}},
	{name: "output that never ends", want: "over the size limit", fault: peptest.Fault{Kind: peptest.Flood, After: 3}},
	{name: "message that never ends", want: "over the size limit", fault: peptest.Fault{Kind: peptest.Hoard, After: 3}},
	{name: "progress that never ends", want: "did not come to its end within", fault: peptest.Fault{Kind: peptest.Chatter, After: 3}},
	{name: "time-outs that never end", want: "did not come to its end within", fault: peptest.Fault{Kind: peptest.WSManFault, Action: "Receive", Code: 2150858793, After: 3}},
	{name: "time-outs that never end at the opening", want: "did not come to its end within", fault: peptest.Fault{Kind: peptest.WSManFault, Action: "Receive", Code: 2150858793}},
	{name: "Done without a state", want: "without the pipeline's state", fault: peptest.Fault{Kind: peptest.NoState, After: 3}},
	{name: "fragment cut short", want: "cut short", fault: peptest.Fault{Kind: peptest.Truncated, After: 3}},
	{name: "fragment twice", want: "received twice", fault: peptest.Fault{Kind: peptest.Duplicate, After: 3}},
	{name: "fragments in another order", want: "out of order", fault: peptest.Fault{Kind: peptest.Reordered, After: 3}},
	{name: "half a reply", want: "connection to the endpoint broke", fault: peptest.Fault{Kind: peptest.Cut}},
	{name: "address that dies in a Receive", want: "the end was not seen", fault: peptest.Fault{Kind: peptest.Dies, Action: "Receive", After: 3}},
	{name: "error behind the action", want: "something is wrong", fault: peptest.Fault{Kind: peptest.ErrorAfter, Cmdlet: "New-RegistrationToken", Text: "something is wrong"}},
}

// raceDetector says that the tests run under the race detector.
var raceDetector bool

// flow is what a run of token does on the endpoint.
func flow(ctx context.Context, o Options) error {
	session, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer session.Close(ctx)
	st, err := session.Stamp(ctx)
	if err != nil {
		return err
	}
	_, _, err = session.NewToken(ctx, st, capacity())
	return err
}

// Threat: whoever sits at the address wants the password or the envelopes, or to
// hang the client, or to fill its memory. In every mode the call ends with an error
// that its own limits bring, nothing that was sent is readable, and the whole
// client, in a process of its own, takes less than 64 MiB from the system.
func TestHostileEndpoints(t *testing.T) {
	covered := map[peptest.Kind]bool{}
	for _, mode := range hostile {
		covered[mode.fault.Kind] = true
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			srv := peptest.NewServer(peptest.WithPassword(hostilePassword))
			defer srv.Close()
			srv.Fail(mode.fault)
			wire := record(t, srv.Addresses[0])
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestMain$")
			child.Env = append(os.Environ(), "AZS_TEST_HOSTILE="+wire.Addr().String(), "AZS_TEST_USER="+srv.User)
			if strings.Contains(mode.want, " within") {
				child.Env = append(child.Env, "AZS_TEST_IMPATIENT=1")
			}
			out, err := child.CombinedOutput()
			if err != nil || ctx.Err() != nil {
				t.Fatalf("the client did not end by itself: %v\n%.2000s", err, out)
			}
			var memory uint64
			if _, err := fmt.Sscanf(string(out), "error peak=%d ", &memory); err != nil {
				t.Fatalf("the client ended with %.2000q", out)
			}
			if !strings.Contains(string(out), mode.want) {
				t.Errorf("the error lacks %q: %s", mode.want, out)
			}
			t.Logf("%.1f MiB: %s", float64(memory)/(1<<20), out)
			if memory > 64<<20 && !raceDetector {
				t.Errorf("the client took %d bytes", memory)
			}
			sent := wire.wire()
			if found := leaks(sent, secrets...); found != nil {
				t.Errorf("in clear: %v", found)
			}
			if !bytes.Contains(sent, []byte("Authorization: Negotiate TlRMTVNTUA")) {
				t.Errorf("the recorder saw no login in %d bytes", len(sent))
			}
		})
	}
	// What is not hostile here: the kinds that only fail a cmdlet or a connection.
	for _, kind := range []peptest.Kind{peptest.Refused, peptest.DropBefore, peptest.DropAfter, peptest.DropIdle, peptest.Vanish, peptest.ErrorRecord,
		peptest.Terminating, peptest.Busy, peptest.Hold, peptest.HostCall, peptest.VoidCall} {
		covered[kind] = true
	}
	for _, kind := range peptest.Kinds() {
		if !covered[kind] {
			t.Errorf("kind %s of peptest is not tried", kind)
		}
	}
}

// TestMain is also the client of TestHostileEndpoints, in a process of its own.
func TestMain(m *testing.M) {
	if addr := os.Getenv("AZS_TEST_HOSTILE"); addr != "" {
		os.Exit(hostileClient(addr))
	}
	os.Exit(m.Run())
}

// hostileClient runs the flow and prints "error", the most memory that the process
// took, and the error. The memory is what the runtime has mapped, of the heap and
// of everything else, less what it gave back: sampled every millisecond, with the
// last sample after the end.
func hostileClient(addr string) int {
	var peak uint64
	sample := func() {
		s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		metrics.Read(s)
		peak = max(peak, s[0].Value.Uint64()-s[1].Value.Uint64())
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				sample()
			case <-stop:
				sample()
				return
			}
		}
	}()
	limits := Limits{}
	if os.Getenv("AZS_TEST_IMPATIENT") != "" {
		limits = impatient
	}
	err := flow(context.Background(), Options{
		Addresses: []string{addr},
		Dial:      Dial(sealed.Options{User: os.Getenv("AZS_TEST_USER"), Password: secret.New(hostilePassword)}, rand.Reader),
		Random:    rand.Reader,
		Sleep:     func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		Limits:    limits,
	})
	close(stop)
	<-done
	if err == nil {
		fmt.Printf("success peak=%d\n", peak)
		return 0
	}
	fmt.Printf("error peak=%d %.2000s\n", peak, err)
	return 0
}

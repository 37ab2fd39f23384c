package psrp

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
	"github.com/google/go-cmp/cmp"
)

// The recordings are exchanges of another client, pypsrp, with real Windows
// hosts (MIT, Jordan Borean, Red Hat). They are not part of the project: these
// tests read them at ../shared/fixtures/psrp from its root, and are skipped
// without them.

// Any recording in that form will do: what is known of the eight that the tests
// were written with is asserted of these, and of every other one that the client
// comes to an end with it.

// exchange is one request of a recording and the reply to it.
type exchange struct {
	action    string // the last part of the request's, such as Receive
	commandID string // of a Receive or Command
	fragments []byte // what the request carries
	streams   [][]byte
	done      bool
	fault     string // the subcode, such as TimedOut
}

// recording is a [Shell] that replays exchanges in their order. Ids are those
// of the recording; only their places are compared. It skips what the other
// client sent and this one has no reason to, and answers a Signal that was not
// recorded.
type recording struct {
	t         *testing.T
	exchanges []exchange
	commands  map[string]string // our command ids, and theirs
	trips     int
	extra     int // signals that were not recorded
	timeouts  int
	loose     bool // the order of the other client's requests is not ours
}

// load reads the recordings whose names contain name.
func load(t *testing.T, name string) map[string][]exchange {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Skip("no workspace root above this folder, so no ../shared/fixtures/psrp")
		}
		dir = filepath.Dir(dir)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "..", "shared", "fixtures", "psrp", "*"+name+"*.yml"))
	if len(files) == 0 {
		t.Skipf("no recordings in ../shared/fixtures/psrp beside %s", filepath.Base(dir))
	}
	all := map[string][]exchange{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(filepath.Base(file), "test_")] = read(t, string(text))
	}
	return all
}

// read takes the requests and responses out of a recording: of YAML, a list of
// mappings whose values are texts. A request that has no response is left out.
func read(t *testing.T, text string) (exchanges []exchange) {
	t.Helper()
	fields := []map[string][]string{}
	key := ""
	for _, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "  ") && len(line) > 2 && line[2] != ' ':
			if line[0] == '-' {
				fields = append(fields, map[string][]string{})
			}
			var value string
			key, value, _ = strings.Cut(line[2:], ":")
			fields[len(fields)-1][key] = []string{value}
		case key != "" && (line == "" || strings.HasPrefix(line, "    ")):
			fields[len(fields)-1][key] = append(fields[len(fields)-1][key], line)
		default:
			key = ""
		}
	}
	for _, f := range fields {
		var request, response struct {
			Action   string `xml:"Header>Action"`
			Creation string `xml:"Body>Shell>creationXml"`
			Command  struct {
				ID        string `xml:"CommandId,attr"`
				Arguments string `xml:"Arguments"`
			} `xml:"Body>CommandLine"`
			Receive struct {
				Stream struct {
					ID string `xml:"CommandId,attr"`
				} `xml:"DesiredStream"`
			} `xml:"Body>Receive"`
			Send struct {
				Streams []string `xml:"Stream"`
			} `xml:"Body>Send"`
			Reply struct {
				Streams []string `xml:"Stream"`
				State   struct {
					State string `xml:"State,attr"`
				} `xml:"CommandState"`
			} `xml:"Body>ReceiveResponse"`
			Fault string `xml:"Body>Fault>Code>Subcode>Value"`
		}
		sent, received := scalar(f["request"]), scalar(f["response"])
		if !strings.HasPrefix(sent, "<") || !strings.HasPrefix(received, "<") {
			continue
		}
		for text, to := range map[string]any{sent: &request, received: &response} {
			if err := xml.Unmarshal([]byte(text), to); err != nil {
				t.Fatal(err)
			}
		}
		decode := func(s string) []byte {
			b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		e := exchange{
			action:    request.Action[strings.LastIndexByte(request.Action, '/')+1:],
			commandID: strings.ToUpper(request.Command.ID + request.Receive.Stream.ID),
			done:      strings.HasSuffix(response.Reply.State.State, "/Done"),
			fault:     response.Fault[strings.LastIndexByte(response.Fault, ':')+1:],
			fragments: decode(request.Creation + request.Command.Arguments),
		}
		for _, s := range request.Send.Streams {
			e.fragments = append(e.fragments, decode(s)...)
		}
		for _, s := range response.Reply.Streams {
			e.streams = append(e.streams, decode(s))
		}
		exchanges = append(exchanges, e)
	}
	return exchanges
}

// scalar reads a text of YAML from its lines: plain, in quotes, or a block. White
// space between words is kept as blanks, which XML does not mind.
func scalar(lines []string) string {
	var words []string
	for _, line := range lines {
		words = append(words, strings.TrimSpace(line))
	}
	switch text := strings.TrimSpace(strings.Join(words, " ")); {
	case strings.HasPrefix(text, "'"):
		return strings.ReplaceAll(strings.Trim(text, "'"), "''", "'")
	case strings.HasPrefix(text, `"`):
		text = strings.Trim(text, `"`)
		text = regexp.MustCompile(`\\ \\?`).ReplaceAllString(text, "") // a line's end and the next one's start
		return regexp.MustCompile(`\\(x..|u....|.)`).ReplaceAllStringFunc(text, func(e string) string {
			if c, _, _, err := strconv.UnquoteChar(e, '"'); err == nil {
				return string(c)
			}
			return e[1:]
		})
	case strings.HasPrefix(text, "|") || strings.HasPrefix(text, ">"):
		return strings.TrimLeft(text, "|>+-0123456789 ")
	default:
		return text
	}
}

// next takes the next exchange, which must be of that action.
func (r *recording) next(action string) (exchange, error) {
	if r.loose {
		return r.find(action, "")
	}
	for len(r.exchanges) > 0 {
		e := r.exchanges[0]
		if e.action != action && (e.action == "Get" || e.action == "Send") {
			r.exchanges = r.exchanges[1:]
			continue
		}
		if e.action != action {
			return e, fmt.Errorf("%s where the recording has %s", action, e.action)
		}
		r.exchanges = r.exchanges[1:]
		r.trips++
		return e, nil
	}
	return exchange{}, fmt.Errorf("%s after the end of the recording", action)
}

// find takes the first exchange of that action and command, wherever it is: some
// clients do at once what this one does in turn.
func (r *recording) find(action, commandID string) (exchange, error) {
	for i, e := range r.exchanges {
		if e.action == action && (e.commandID == commandID || action != "Receive") {
			r.exchanges = slices.Delete(slices.Clone(r.exchanges), i, i+1)
			r.trips++
			return e, e.failure()
		}
	}
	return exchange{}, fmt.Errorf("no %s of %q is left in the recording", action, commandID)
}

// refused is a fault by which nothing was begun.
type refused string

func (r refused) Error() string  { return "fault " + string(r) }
func (r refused) Definite() bool { return true }

func (e exchange) failure() error {
	if e.fault == "" || e.fault == "TimedOut" {
		return nil
	}
	return refused(e.fault)
}

func (r *recording) Create(_ context.Context, shellID string, creation []byte) error {
	e, err := r.next("Create")
	if err == nil && !r.loose {
		compareShape(r.t, e.fragments, creation)
	}
	return err
}

func (r *recording) Command(_ context.Context, commandID string, first []byte) error {
	e, err := r.next("Command")
	if err == nil {
		r.commands[commandID] = e.commandID
	}
	if err == nil && !r.loose {
		compareShape(r.t, e.fragments, first)
	}
	return err
}

// compareShape wants the same messages, by type and object id, in two requests.
func compareShape(t *testing.T, theirs, ours []byte) {
	t.Helper()
	shape := func(data []byte) (s []string) {
		for len(data) > 0 {
			f, rest, err := DecodeFragment(data)
			if err != nil {
				t.Fatal(err)
			}
			data = rest
			s = append(s, fmt.Sprintf("object %d fragment %d type %x", f.ObjectID, f.ID, f.Blob[4:8]))
		}
		return s
	}
	if diff := cmp.Diff(shape(theirs), shape(ours)); diff != "" {
		t.Errorf("the request has other messages (-recorded +ours):\n%s", diff)
	}
}

func (r *recording) Send(_ context.Context, _, stream string, _ []byte) error {
	if r.loose && stream == StreamHostResponse {
		return nil // whatever the other client answered the host
	}
	return fmt.Errorf("there is nothing to send")
}

func (r *recording) Receive(_ context.Context, commandID string) ([][]byte, bool, error) {
	for {
		take := r.next
		if r.loose {
			take = func(action string) (exchange, error) { return r.find(action, r.commands[commandID]) }
		}
		e, err := take("Receive")
		if err != nil {
			return nil, false, err
		}
		if want := r.commands[commandID]; e.commandID != want {
			return nil, false, fmt.Errorf("a Receive of %q where the recording has %q", want, e.commandID)
		}
		if e.fault == "TimedOut" {
			r.timeouts++
			continue
		}
		if e.fault != "" {
			return nil, false, fmt.Errorf("fault %s", e.fault)
		}
		return e.streams, e.done, nil
	}
}

func (r *recording) Signal(_ context.Context, commandID, code string) error {
	if r.commands[commandID] == "" || code != SignalTerminate {
		return fmt.Errorf("signal %s to %q", code, commandID)
	}
	if _, err := r.next("Signal"); err != nil {
		r.extra++
	}
	return nil
}

func (r *recording) Delete(context.Context) error {
	_, err := r.next("Delete")
	return err
}

// TestRecordedMessages holds that everything that real servers sent is put
// together and parsed, and that what is parsed marshals to the same bytes.
func TestRecordedMessages(t *testing.T) {
	counts := map[string][2]int{ // streams and messages
		"psrp_with_jea_configuration.yml": {7, 7}, "psrp_no_profile.yml": {5, 5}, "psrp_multiple_invocations.yml": {7, 7},
		"psrp_long_running_cmdlet.yml": {5, 5}, "psrp_error_failed.yml": {6, 6}, "psrp_stream_no_output_invocation.yml": {11, 11},
		"psrp_small_msg_size.yml": {7, 7}, "client_fetch_file.yml": {18, 8},
	}
	for name, exchanges := range load(t, "") {
		streams, messages := 0, 0
		want, known := counts[name]
		in := map[string]*Defragmenter{}
		for _, e := range exchanges {
			for _, s := range e.streams {
				streams++
				if in[e.commandID] == nil {
					in[e.commandID] = new(Defragmenter)
				}
				complete, err := in[e.commandID].Write(s)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for _, data := range complete {
					messages++
					m, err := DecodeMessage(data)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if strings.HasPrefix(m.Type.String(), "message type") || m.To != ToClient {
						t.Errorf("%s: %v for %d", name, m.Type, m.To)
					}
					if m.Pool.IsZero() != (m.Type == SessionCapability || m.Type == EncryptedSessionKey) {
						t.Errorf("%s: %v has the pool %s", name, m.Type, m.Pool)
					}
					if again := m.Encode(); known && !bytes.Equal(again, data) {
						t.Errorf("%s: %v encodes to other bytes", name, m.Type)
					}
					v, err := m.Value()
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if diff := cmp.Diff(string(m.Data), string(clixml.Marshal(v))); known && diff != "" {
						t.Errorf("%s: %v marshals to other bytes:\n%s", name, m.Type, diff)
					}
				}
			}
		}
		for id, d := range in {
			if err := d.Close(); err != nil {
				t.Errorf("%s: stream %q: %v", name, id, err)
			}
		}
		if got := [2]int{streams, messages}; known && got != want {
			t.Errorf("%s: %v Streams and messages, want %v", name, got, want)
		}
	}
}

// TestRecordedRequest holds that our requests are, to the byte, those with
// which another client succeeded on a JEA endpoint, but for the ids and the
// case of one enumeration's text.
func TestRecordedRequest(t *testing.T) {
	exchanges := load(t, "with_jea")["psrp_with_jea_configuration.yml"]
	if len(exchanges) < 7 {
		t.Skip("the recordings have no psrp_with_jea_configuration")
	}
	blobs := func(data []byte) (out []string) {
		for len(data) > 0 {
			f, rest, err := DecodeFragment(data)
			if err != nil {
				t.Fatal(err)
			}
			data = rest
			out = append(out, strings.ReplaceAll(string(f.Blob[MessageHeaderLen:]), ">UNKNOWN<", ">Unknown<"))
		}
		return out
	}
	p := &Pool{id: testPool}
	if diff := cmp.Diff(blobs(exchanges[0].fragments), blobs(p.opening(NewInitRunspacePool(p.id)))); diff != "" {
		t.Errorf("opening (-recorded +ours):\n%s", diff)
	}
	command := NewCreatePipeline(testPool, testPipeline,
		Command{"Get-Item", []Parameter{Param("Path", `WSMan:\localhost\Service\AllowUnencrypted`)}})
	if diff := cmp.Diff(blobs(exchanges[4].fragments), []string{string(command.Data)}); diff != "" {
		t.Errorf("pipeline (-recorded +ours):\n%s", diff)
	}

	// And the server's half reads the script in the second one for what it is.
	f, _, err := DecodeFragment(exchanges[6].fragments)
	if err != nil {
		t.Fatal(err)
	}
	m, err := DecodeMessage(f.Blob)
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Value()
	if err != nil {
		t.Fatal(err)
	}
	request, err := ParseCreatePipeline(v)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]Stage{
		{{Command: Command{"Get-Item", []Parameter{Param("Path", `C:\Windows`)}}}},
		{{Command: Command{Name: `Set-Item -Path WSMan:\localhost\Service\AllowUnencrypted -Value $false`}, IsScript: true}},
	}
	if diff := cmp.Diff(want, request.Statements); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// result is what a command of a recording must come to.
type result struct {
	Output   []string // the text of each value, its middle left out
	Error    string
	State    PipelineState
	IDs      []string // of the error records
	Records  []Record
	Progress []string
}

// TestReplay runs the client against every recording: one command for each
// that was run, whatever it was.
func TestReplay(t *testing.T) {
	modules := "Preparing modules for first use."
	tests := map[string]struct {
		results         []result
		trips, timeouts int // with what was recorded of Signal
	}{
		"psrp_with_jea_configuration.yml": {[]result{
			{Output: []string{"Microsoft.WSMan.Management.WSManConfigLeafElement"}},
			{
				Error: "Recorded-Command failed on the endpoint: The syntax is not supported by this runspace. This can occur if the runspace is in no-language mode. (ScriptsNotAllowed), and 1 more",
				State: PipelineFailed,
				IDs:   []string{"ScriptsNotAllowed", "ProviderNotFound,Microsoft.PowerShell.Commands.GetItemCommand"},
			},
		}, 9, 0},
		"psrp_no_profile.yml": {[]result{{Output: []string{`C:\WINDOWS\SYSTEM32\CONFIG\SYSTEMPROFILE`}}}, 6, 0},
		"psrp_multiple_invocations.yml": {[]result{
			{Output: []string{"2"}}, {Output: []string{"2"}},
		}, 10, 0},
		"psrp_long_running_cmdlet.yml": {[]result{{Output: []string{"hi"}}}, 8, 2},
		"psrp_error_failed.yml": {[]result{{
			Output:   []string{"before"},
			Error:    "Recorded-Command failed on the endpoint: error (Microsoft.PowerShell.Commands.WriteErrorException)",
			State:    PipelineFailed,
			IDs:      []string{"Microsoft.PowerShell.Commands.WriteErrorException"},
			Progress: []string{modules},
		}}, 6, 0},
		"psrp_stream_no_output_invocation.yml": {[]result{{
			Output: []string{"output stream"},
			Error:  "Recorded-Command failed on the endpoint: error stream (Microsoft.PowerShell.Commands.WriteErrorException)",
			State:  PipelineCompleted,
			IDs:    []string{"Microsoft.PowerShell.Commands.WriteErrorException"},
			Records: []Record{{DebugRecord, "debug stream"}, {VerboseRecord, "verbose stream"},
				{WarningRecord, "warning stream"}, {InformationRecord, "information stream"}},
			Progress: []string{modules},
		}}, 6, 0},
		"psrp_small_msg_size.yml": {nil, 7, 0},
		"client_fetch_file.yml":   {nil, 8, 0},
	}
	for name, exchanges := range load(t, "") {
		t.Run(strings.TrimSuffix(name, ".yml"), func(t *testing.T) { replayAny(t, exchanges) })
		tt, known := tests[name]
		if !known {
			continue
		}
		for form, in := range forms {
			t.Run(strings.TrimSuffix(name, ".yml")+"/"+form, func(t *testing.T) {
				r := &recording{t: t, exchanges: in(t, exchanges), commands: map[string]string{}}
				got, output := replay(t, r)
				if (r.trips != tt.trips && form == "as recorded") || r.timeouts != tt.timeouts || len(r.exchanges) > 0 {
					t.Errorf("%d trips, %d timeouts, %d exchanges left; want %d, %d, 0", r.trips, r.timeouts, len(r.exchanges), tt.trips, tt.timeouts)
				}
				t.Logf("%d trips and %d signals that were not recorded", r.trips, r.extra)
				switch name {
				case "psrp_with_jea_configuration.yml":
					if v, _ := clixml.Get(output[0][0], "Value"); v != clixml.String("true") {
						t.Errorf("the element's value is %v", v)
					}
				case "psrp_small_msg_size.yml":
					var lengths []int
					for _, v := range output[0] {
						lengths = append(lengths, len(clixml.Text(v)))
					}
					if diff := cmp.Diff([]int{5, 20000, 10000}, lengths); diff != "" {
						t.Error(diff)
					}
					return
				case "client_fetch_file.yml":
					// The file, and the SHA-1 of it that the server reckoned.
					file, err := base64.StdEncoding.DecodeString(got[0].Output[0])
					sum := sha1.Sum(file)
					if err != nil || hex.EncodeToString(sum[:]) != got[0].Output[1] {
						t.Errorf("the file of %d bytes has SHA-1 %x, the server said %s, %v", len(file), sum, got[0].Output[1], err)
					}
					return
				}
				if diff := cmp.Diff(tt.results, got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}

// replay runs a command for each that was run.
func replay(t *testing.T, r *recording) (got []result, output [][]clixml.Value) {
	t.Helper()
	p, err := NewPool(r, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	for slices.ContainsFunc(r.exchanges, func(e exchange) bool { return e.action == "Command" }) {
		var one result
		values, err := p.Run(t.Context(), Command{Name: "Recorded-Command"}, Handlers{
			Progress: func(p Progress) { one.Progress = append(one.Progress, p.Activity) },
			Record:   func(r Record) { one.Records = append(one.Records, r) },
		})
		for _, v := range values {
			one.Output = append(one.Output, clixml.Text(v))
		}
		var remote *RemoteError
		var nothing refused
		switch {
		case errors.As(err, &remote):
			one.Error, one.State = remote.Error(), remote.State
			for _, record := range remote.Records {
				one.IDs = append(one.IDs, record.FullyQualifiedErrorID)
			}
		case r.loose && errors.As(err, &nothing):
			one.Error = err.Error()
		case err != nil:
			t.Fatal(err)
		}
		got, output = append(got, one), append(output, values)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return got, output
}

// replayAny runs the client against a recording of which nothing is known.
func replayAny(t *testing.T, exchanges []exchange) {
	for _, e := range exchanges {
		switch e.action {
		case "Create":
			if len(e.fragments) == 0 {
				t.Skip("the recording is of a shell without PowerShell")
			}
		case "Receive", "Command", "Send", "Signal", "Delete", "Get":
		default:
			t.Skipf("the recording has a %s, which a command has no reason to send", e.action)
		}
	}
	r := &recording{t: t, exchanges: exchanges, commands: map[string]string{}, loose: true}
	got, _ := replay(t, r)
	for _, one := range got {
		t.Logf("%d values, error %q", len(one.Output), one.Error)
	}
}

// forms are those in which a host may give the same replies: nothing says that a
// Stream is one fragment, or how large these are.
var forms = map[string]func(*testing.T, []exchange) []exchange{
	"as recorded": func(_ *testing.T, in []exchange) []exchange { return in },
	"one Stream a reply": func(_ *testing.T, in []exchange) []exchange {
		out := slices.Clone(in)
		for i, e := range out {
			if len(e.streams) > 1 {
				out[i].streams = [][]byte{bytes.Join(e.streams, nil)}
			}
		}
		return out
	},
	"fragments of 100 bytes over two replies": func(t *testing.T, in []exchange) (out []exchange) {
		next := map[string]uint64{}
		for _, e := range in {
			var small [][]byte
			for _, s := range e.streams {
				f, _, err := DecodeFragment(s)
				if err != nil {
					t.Fatal(err)
				}
				if f.Start {
					next[e.commandID] = 0
				}
				for blob := range slices.Chunk(f.Blob, 100) {
					id := next[e.commandID]
					next[e.commandID]++
					last := &blob[len(blob)-1] == &f.Blob[len(f.Blob)-1]
					small = append(small, Fragment{ObjectID: f.ObjectID, ID: id, Start: id == 0, End: f.End && last, Blob: blob}.Append(nil))
				}
			}
			if half := len(small) / 2; half > 0 {
				first := e
				first.streams, first.done = small[:half], false
				out = append(out, first)
				small = small[half:]
			}
			e.streams = small
			out = append(out, e)
		}
		return out
	},
}

// The texts of a recording may be written in each of YAML's ways.
func TestReadsEverySpelling(t *testing.T) {
	const request = `<E a="1"><Header><Action>x/Receive</Action></Header></E>`
	const response = `<E><Body><ReceiveResponse><Stream>QQ==</Stream></ReceiveResponse></Body></E>`
	want := read(t, "messages:\n- request: "+request+"\n  response: "+response+"\n")
	if len(want) != 1 || want[0].action != "Receive" || string(want[0].streams[0]) != "A" {
		t.Fatalf("%+v", want)
	}
	for name, text := range map[string]string{
		"folded":        "- request: " + strings.Replace(request, "<Action>", "\n    <Action>", 1) + "\n  response: " + response,
		"single quotes": "- request: '" + request + "'\n  response: '" + strings.Replace(response, "<Stream>", "\n\n    <Stream>", 1) + "'",
		"double quotes": `- request: "` + strings.ReplaceAll(request, `"`, `\"`) + `"` + "\n  response: \"" + strings.Replace(response, "<Stream>", "\\\n    \\<Str\\x65am>", 1) + "\"\n",
		"block":         "- request: |-\n    " + request + "\n  response: >\n    " + response + "\n",
		"CRLF, no answer to the first": "- request: " + request + "\r\n  response: null\r\n  transport_error: x\r\n- http_error: 200\r\n  request: " + request +
			"\r\n  response: " + response + "\r\n",
	} {
		if diff := cmp.Diff(want, read(t, text), cmp.AllowUnexported(exchange{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}
